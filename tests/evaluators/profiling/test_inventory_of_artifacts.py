"""The inventory against what onnxruntime executes: exported artifacts after its optimisation, kernel by kernel.

Differences that are there are listed, so that a new one is seen.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator

import pytest

from compression.calibration.calibration import Calibration
from compression.compress import compress
from compression.export.onnx_runtime.artifact import export
from compression.recipe.recipe import Recipe
from compression.whisper.load import LoadedModel
from devices.operation import Operation
from evaluators.costs.inventory import InventoryItem, Stage, operations
from evaluators.profiling import operation_models
from evaluators.profiling.operation_models import operation_model
from tests.compression.export.models import COMPACT, changed, compact_calibration, compact_model, without
from tests.evaluators.profiling.optimised import kernels, optimised

ORIGINAL = Recipe.original(COMPACT, stored_bits=16)
EIGHT = changed(ORIGINAL, bits=8, convolution_bits=8)
RECIPES = {
    "float32": Recipe.original(COMPACT, stored_bits=32),
    "float16": ORIGINAL,
    "8 bits": EIGHT,
    "8 bits, zero points": changed(EIGHT, symmetric=False),
    "4 bits in groups": changed(ORIGINAL, bits=4, group_size=32),
    "2 bits in groups": changed(ORIGINAL, bits=2, group_size=16),
    "8 bits, int8": changed(EIGHT, activation_bits=8),
    "4 bits in groups, int8": changed(ORIGINAL, bits=4, group_size=32, activation_bits=8),
    "4 bits, int8": changed(ORIGINAL, bits=4, activation_bits=8),
    "float16, int8": changed(ORIGINAL, activation_bits=8),
    "8 bits, int16": changed(EIGHT, activation_bits=16),
    "8 bits in groups, int8, calibrated": changed(EIGHT, activation_bits=8, activation_ranges="static", group_size=32),
    "8 bits, int8, calibrated": changed(EIGHT, activation_bits=8, activation_ranges="static"),
    "mixed": changed(ORIGINAL, encoder={"attention_bits": 4}, decoder={"ffn_bits": 8}, embedding_bits=4, group_size=32),
    "frequent tokens": changed(ORIGINAL, bits=4, group_size=32, frequent_tokens=300),
    "low rank": changed(ORIGINAL, encoder={"ffn_rank": 32}, decoder={"ffn_rank": 16}),
    "low rank, 4 bits in groups, int8": changed(
        ORIGINAL, bits=4, group_size=32, activation_bits=8, encoder={"ffn_rank": 32}, decoder={"ffn_rank": 48}
    ),
    "8 bits, int16, low rank": changed(EIGHT, activation_bits=16, encoder={"ffn_rank": 48}, decoder={"ffn_rank": 16}),
    "pruned": without(
        changed(ORIGINAL, bits=4, group_size=32, encoder={"heads": 3}, decoder={"heads": 1, "cross_heads": 3}),
        "decoder",
        1,
    ),
}
TOKENS = 9
"""An odd number of steps: cached attention is then one item, not two of neighbouring lengths."""


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return compact_model()


@pytest.fixture(scope="module")
def calibration(model: LoadedModel) -> Calibration:
    return compact_calibration(model)


Executed = dict[Stage, Counter[str]]


@pytest.fixture(scope="module")
def executed(
    model: LoadedModel, calibration: Calibration, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Executed]:
    """The kernels of both graphs of an artifact, by its name in `RECIPES`."""
    known: dict[str, Executed] = {}

    def find(name: str) -> Executed:
        if name not in known:
            folder, recipe = tmp_path_factory.mktemp("artifact"), RECIPES[name]
            export(model, recipe, compress(model, recipe, calibration), folder)
            known[name] = {
                "encoder": kernels(optimised(folder / "encoder.onnx")),
                "decoder": kernels(optimised(folder / "decoder.onnx")),
            }
        return known[name]

    return find


def items(name: str, stage: Stage) -> list[InventoryItem]:
    return [item for item in operations(COMPACT, RECIPES[name], tokens=TOKENS) if item.stage == stage]


SAME = {
    "DynamicQuantizeMatMul": "integer product",
    "MatMulIntegerToFloat": "integer product",
    "MatMulInteger": "integer product",
    "BiasGelu": "Gelu",  # the bias of the product before in one pass: priced as both
}
"""Kernels that count as one."""
COUNTED = {
    *("MatMul", "MatMulNBits", "integer product", "MultiHeadAttention", "LayerNormalization", "Gelu", "Conv"),
    *("QuantizeLinear", "DynamicQuantizeLinear", "DequantizeLinear", "ReduceMin"),
}


def counted(found: Counter[str]) -> Counter[str]:
    merged: Counter[str] = Counter()
    for kernel, count in found.items():
        merged[SAME.get(kernel, kernel)] += count
    return Counter({kernel: count for kernel, count in merged.items() if kernel in COUNTED})


def kernels_of(item: InventoryItem) -> Iterator[str]:
    o = item.operation
    match o.kind:
        case "gemm" | "gemv" if o.weight_bits == 32:
            yield "MatMul"
        case "gemm" | "gemv" if o.group_size:
            in_halves = o.kind == "gemv" and (o.weight_bits, o.activation_bits) == (8, 32)
            yield from ["MatMulNBits"] * (2 if in_halves else 1)
        case "gemm" | "gemv":
            yield "integer product"
        case "attention" | "cached_attention" | "cross_attention":
            yield "MultiHeadAttention"
        case "dynamic_quantise" if o.activation_bits == 16:
            yield from ("ReduceMin", "QuantizeLinear")
        case _:
            yield from ONE.get(o.kind, ())


ONE: dict[str, tuple[str, ...]] = {
    "layer_norm": ("LayerNormalization",),
    "gelu": ("Gelu",),
    "convolution": ("Conv",),
    "quantise": ("QuantizeLinear",),
    "dynamic_quantise": ("DynamicQuantizeLinear",),
    "dequantise": ("DequantizeLinear",),
}


def listed(found: Iterable[InventoryItem]) -> Counter[str]:
    return Counter(kernel for item in found for kernel in kernels_of(item))


def decoder_layers(name: str) -> int:
    return sum(layer is not None for layer in RECIPES[name].decoder)


def encoder_difference(name: str) -> Counter[str]:
    """All layers of the decoder project the same output of the encoder: it is rounded once, not once per layer."""
    again, recipe = decoder_layers(name) - 1, RECIPES[name]
    rounded = [item for item in items(name, "encoder") if "cross_attention.key_value_" in item.name]
    if any(item.operation.kind.endswith("quantise") for item in rounded):
        once = listed([item for item in rounded if item.operation.kind != "dequantise"][:1])
        return Counter({kernel: -again * count for kernel, count in once.items()})
    if name == "8 bits, int8":  # rounding is then no longer a part of these products
        return Counter({"DynamicQuantizeLinear": 1})
    if name == "8 bits, int8, calibrated":  # the table holds the fused product that finds its range
        return Counter({"QuantizeLinear": listed(items(name, "encoder"))["integer product"] - again})
    assert recipe.activation_bits == 32 or recipe.group_size
    return Counter()


def decoder_difference(name: str) -> Counter[str]:
    """8-bit codes in two halves: each product gets its own float32 input."""
    rounds_in_front = [item for item in items(name, "decoder") if item.operation.kind == "dequantise"]
    found = listed(items(name, "decoder"))
    if name == "8 bits, int8, calibrated":
        return Counter({"QuantizeLinear": found["integer product"]})
    if rounds_in_front and name.startswith("8 bits"):
        return Counter({"DequantizeLinear": len(rounds_in_front)})
    return Counter()


@pytest.mark.parametrize("name", RECIPES)
def test_the_encoder_executes_what_the_inventory_lists(name: str, executed: Callable[[str], Executed]) -> None:
    expected = listed(items(name, "encoder"))
    expected.update(encoder_difference(name))
    assert counted(executed(name)["encoder"]) == +expected


@pytest.mark.parametrize("name", RECIPES)
def test_the_decoder_executes_what_the_inventory_lists(name: str, executed: Callable[[str], Executed]) -> None:
    expected = listed(items(name, "decoder"))
    expected.update(decoder_difference(name))
    assert counted(executed(name)["decoder"]) == +expected


@pytest.mark.parametrize("name", RECIPES)
def test_keys_and_values_are_split_once_per_decoder_layer(name: str, executed: Callable[[str], Executed]) -> None:
    """Two transposes each, and one behind the convolutions."""
    splits = [item for item in items(name, "encoder") if item.operation.kind == "split_heads"]
    assert len(splits) == decoder_layers(name)
    assert executed(name)["encoder"]["Transpose"] == 1 + 2 * len(splits)


FREE = {"Shape", "Slice", "Concat", "Squeeze", "Unsqueeze", "Transpose", "Reshape", "Gather", "Add", "Cast"}
"""Positions, shapes and layouts: a few executions that no operation is for."""
UNPRICED = {
    "float32": {"BiasGelu"},
    "float16": {"BiasGelu"},
    "low rank": {"BiasGelu"},
    "float16, int8": {"BiasGelu"},
    "mixed": {"BiasGelu"},
    "frequent tokens": {"Clip", "Equal", "GreaterOrEqual", "Min", "Where"},  # which table has the token
    "8 bits, int8": {"MatMulIntegerToFloat", "DynamicQuantizeLinear"},
    "8 bits, int8, calibrated": {"BiasGelu", "MatMulInteger", "QuantizeLinear"},
}
"""Kernels in an artifact that no model of its operations runs, for the reasons above."""


@pytest.mark.parametrize("name", RECIPES)
def test_models_of_operations_run_the_kernels_of_artifacts(
    name: str, executed: Callable[[str], Executed], monkeypatch: pytest.MonkeyPatch
) -> None:
    """That the table times what is executed: no kernel of an artifact is missing among those that are timed."""
    monkeypatch.setattr(operation_models, "MAX_COPIES", 2)
    timed: set[str] = set()
    for operation in shapes_with_heads_of_64(name):
        timed |= kernels(optimised(operation_model(operation).model)).keys()
    in_artifact = executed(name)["encoder"].keys() | executed(name)["decoder"].keys()
    assert in_artifact - timed - FREE == UNPRICED.get(name, set())


def shapes_with_heads_of_64(name: str) -> set[Operation]:
    """The recipe's operations; this model's narrow heads cannot be split."""
    kinds = {item.operation for item in operations(COMPACT, RECIPES[name], tokens=TOKENS)}
    return {operation for operation in kinds if operation.kind not in ("split_heads", "session")}
