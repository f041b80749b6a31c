"""Export to CTranslate2: a directory that faster-whisper loads without a network.

The layout of model.bin is described in `compression.whisper.ctranslate2_format`, which reads it. With
compute_type="float32" CTranslate2 computes with the recipe's weights: floating point exactly, integers to within one
unit in the last place of float32, because it multiplies by the reciprocal of a reciprocal of the scale. With "int8" it
also rounds every row of a linear layer's input to 8 bits, as it does for every model of integers.
"""

import json
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor, nn
from whisper.model import Whisper

from compression.export.alignment import alignment_heads
from compression.recipe.dimensions import Dimensions
from compression.recipe.recipe import Recipe
from compression.techniques.compressed import Compressed
from compression.techniques.grids import QuantisedMatrix
from compression.whisper.ctranslate2_format import (
    BINARY_VERSION,
    BLOCK_MODULES,
    DTYPES,
    EMBEDDING,
    OTHER_MODULES,
    PROJECTION,
    SPEC_NAME,
    SPEC_REVISION,
)
from compression.whisper.decoding_rules import rules_of
from compression.whisper.load import LoadedModel
from compression.whisper.tokenizer import all_tokens, tokenizer_json, tokenizer_of

STORED_BITS = (8, 16, 32)
_GELU = 3
_DECODER_SETTINGS = {
    "activation": _GELU,
    "alibi": 0,
    "pre_norm": 1,
    "scale_embeddings": 0,
    "start_from_zero_embedding": 0,
}
"""What tells CTranslate2's general decoder that it is Whisper's (ctranslate2/specs/whisper_spec.py)."""


def export(model: LoadedModel, recipe: Recipe, compressed: Compressed, out: Path) -> None:
    """Write `compress(model, recipe, ...)` into the folder `out`; the recipe must not be refused.

    model.bin, config.json and vocabulary.json are CTranslate2's; tokenizer.json and preprocessor_config.json are
    faster-whisper's.
    """
    network = compressed.network
    tokenizer = tokenizer_of(network)
    rules = rules_of(network, tokenizer)
    with (out / "model.bin").open("wb") as handle:
        _write(handle, _variables(compressed, model.dimensions))
    config = {
        "alignment_heads": alignment_heads(recipe, network),
        "lang_ids": sorted(tokenizer.all_language_tokens),
        "suppress_ids": list(rules.suppressed),
        "suppress_ids_begin": list(rules.begin_suppressed),
    }
    files: dict[str, object] = {
        "config.json": config,
        "vocabulary.json": all_tokens(tokenizer),
        "tokenizer.json": tokenizer_json(tokenizer),
        "preprocessor_config.json": {"feature_size": model.dimensions.n_mels},
    }
    for name, content in files.items():
        (out / name).write_text(json.dumps(content), encoding="utf-8")


def _variables(compressed: Compressed, dimensions: Dimensions) -> dict[str, Tensor]:
    """CTranslate2's variables by name, as they are stored."""
    network, codes = compressed.network, compressed.codes
    variables = {f"decoder/{name}": torch.tensor(value, dtype=torch.int8) for name, value in _DECODER_SETTINGS.items()}
    widths = {"encoder": dimensions.audio_head_width, "decoder": dimensions.text_head_width}
    for stack in widths:
        part = getattr(network, stack)
        variables[f"{stack}/num_heads"] = torch.tensor(part.blocks[0].attn.n_head, dtype=torch.int16)
        variables[f"{stack}/position_encodings/encodings"] = _floats(part.positional_embedding)
    for name, modules in _modules(network):
        parts = [_parameters(module, codes.get(module)) for module in modules]
        variables |= {f"{name}/{parameter}": torch.cat([part[parameter] for part in parts]) for parameter in parts[0]}
        attention, _, part = name.rpartition("/")
        if attention.endswith("attention") and part == "linear_0":
            # the default, (width / heads)^-0.5, is wrong where heads are pruned
            variables[f"{attention}/queries_scale"] = torch.tensor(widths[name.split("/")[0]] ** -0.5)
    return variables


def _modules(network: Whisper) -> Iterator[tuple[str, list[nn.Module]]]:
    """CTranslate2's layers by name, each with the modules whose rows it stacks."""
    for name, module in OTHER_MODULES.items():
        yield name, [network.get_submodule(module)]
    for stack in ("encoder", "decoder"):
        for index, block in enumerate(getattr(network, stack).blocks):
            for name, parts in BLOCK_MODULES.items():
                if block.cross_attn is not None or not name.startswith("attention"):
                    yield f"{stack}/layer_{index}/{name}", [block.get_submodule(part) for part in parts]


def _parameters(module: nn.Module, quantised: QuantisedMatrix | None) -> dict[str, Tensor]:
    """What CTranslate2 stores of a module with these codes; keys, which have no bias, get one of zeros."""
    if isinstance(module, nn.LayerNorm):
        return {"gamma": _floats(module.weight), "beta": _floats(module.bias)}
    weight = module.get_parameter("weight")
    parameters = {"weight": _floats(weight)} if quantised is None else _integers(quantised, weight.shape)
    if not isinstance(module, nn.Embedding):
        has_bias = isinstance(module.bias, Tensor)
        parameters["bias"] = _floats(module.get_parameter("bias") if has_bias else torch.zeros(len(weight)))
    return parameters


def _integers(quantised: QuantisedMatrix, shape: torch.Size) -> dict[str, Tensor]:
    """Signed codes in the weight's own shape, and one scale per row."""
    codes = quantised.codes.flatten(1).to(torch.int16) - 2 ** (quantised.bits - 1)
    scales = quantised.scales.squeeze(1).float()
    # what is stored is the reciprocal of what the codes are multiplied by; the scale of a row of zeros is 0
    return {"weight": codes.to(torch.int8).view(shape), "weight_scale": torch.where(scales == 0, 1.0, 1 / scales)}


def _floats(values: Tensor) -> Tensor:
    """float16 where that changes no value, else float32."""
    half = values.detach().half()
    return half if torch.equal(half.float(), values) else values.detach()


def _write(handle: BinaryIO, variables: Mapping[str, Tensor]) -> None:
    """model.bin: a header, the variables, and the names of the embedding as the output projection."""

    def number(code: str, value: int) -> None:
        handle.write(struct.pack(f"<{code}", value))

    def string(text: str) -> None:
        number("H", len(text) + 1)
        handle.write(text.encode() + b"\0")

    number("I", BINARY_VERSION)
    string(SPEC_NAME)
    number("I", SPEC_REVISION)
    number("I", len(variables))
    for name, value in sorted(variables.items()):
        string(name)
        number("B", value.dim())
        for size in value.shape:
            number("I", size)
        number("B", DTYPES.index(value.dtype))
        number("I", value.nbytes)
        handle.write(value.contiguous().numpy().tobytes())
    aliases = {name.replace(EMBEDDING, PROJECTION): name for name in variables if name.startswith(EMBEDDING)}
    number("I", len(aliases))
    for alias, name in aliases.items():
        string(alias)
        string(name)
