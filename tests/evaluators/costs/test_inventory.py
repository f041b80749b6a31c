"""The inventory against closed forms, brute force, the quantiser's tensors and networks of the same shape."""

from collections import Counter
from dataclasses import replace
from math import ceil, prod

import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from common.errors import InputError
from compression.export.onnx_runtime.decoder import decoder_graph
from compression.export.onnx_runtime.encoder import encoder_graph
from compression.recipe.dimensions import Dimensions
from compression.recipe.recipe import Recipe
from compression.techniques.compressed import Compressed
from compression.techniques.grids import Grid, quantise
from devices.streams import streamed_bytes
from evaluators.costs.inventory import operations, prompt_length
from evaluators.costs.tensor_bytes import tensor_bytes
from tests.networks import network_of_shape
from tests.strategies import recipes, small_dimensions

SMALL = small_dimensions()
WHISPERS = small_dimensions(layers=1, state=64, vocabulary=51865)
TINY_EN = Dimensions(
    n_mels=80,
    n_audio_ctx=1500,
    n_audio_state=384,
    n_audio_head=6,
    n_audio_layer=4,
    n_vocab=51864,
    n_text_ctx=448,
    n_text_state=384,
    n_text_head=6,
    n_text_layer=4,
)


def stored_bytes(weight: torch.Tensor, grid: Grid) -> int:
    """Bytes of a matrix as the quantiser makes it, counted from its tensors."""
    if grid.bits > 8:
        return weight.numel() * grid.bits // 8
    matrix = quantise(weight.flatten(1), grid)
    rows, *codes_of_a_row = matrix.codes.shape
    size = rows * ceil(prod(codes_of_a_row) * grid.bits / 8)
    size += sum(part.nbytes for part in (matrix.scales, matrix.row_scales) if part is not None)
    if matrix.zero_points is not None:
        size += rows * ceil(matrix.zero_points.shape[1] * grid.bits / 8)
    return size


def network_bytes(network: nn.Module, recipe: Recipe) -> int:
    """Bytes of a network whose blocks are the recipe's, tensor by tensor."""
    float_bytes = 4 if min(recipe.weight_bits) == 32 else 2
    grid = Grid(bits=32, symmetric=recipe.symmetric, scale_bits=recipe.scale_bits)
    layers = {
        "encoder": [layer for layer in recipe.encoder if layer],
        "decoder": [layer for layer in recipe.decoder if layer],
    }
    size = 0
    for name, parameter in network.named_parameters():
        stack, *rest = name.split(".")
        if "conv" in name and parameter.ndim > 1:
            bits, group_size = recipe.convolution_bits, 0
        elif name == "decoder.token_embedding.weight":
            bits, group_size = recipe.embedding_bits, recipe.group_size
        elif "blocks" in name and parameter.ndim > 1:
            layer = layers[stack][int(rest[1])]
            bits = layer.ffn_bits if "mlp." in name else layer.attention_bits
            group_size = recipe.group_size
        else:
            size += parameter.numel() * float_bytes
            continue
        size += stored_bytes(parameter.detach(), replace(grid, bits=bits, group_size=group_size))
    return size


@given(
    outputs=st.integers(1, 9),
    inputs=st.integers(1, 70),
    bits=st.integers(2, 8),
    group_size=st.sampled_from((0, 1, 7, 16, 32, 128)),
    symmetric=st.booleans(),
    scale_bits=st.sampled_from((8, 16)),
)
def test_tensor_bytes_are_those_of_the_quantiser(outputs, inputs, **grid_fields) -> None:
    grid = Grid(**grid_fields)
    predicted = tensor_bytes(outputs, inputs, **grid_fields)
    assert predicted.stored == stored_bytes(torch.ones(outputs, inputs), grid)


def test_tensor_bytes_of_known_tensors() -> None:
    assert tensor_bytes(384, 384, 16).stored == 2 * 384 * 384
    assert tensor_bytes(384, 384, 32).stored == 4 * 384 * 384
    assert tensor_bytes(384, 384, 8).stored == 384 * (384 + 2)
    # q4_0 of llama.cpp: 18 bytes per block of 32
    assert tensor_bytes(384, 384, 4, group_size=32).stored == 384 * 12 * 18
    asymmetric = tensor_bytes(384, 384, 4, group_size=32, symmetric=False)
    assert asymmetric.stored == 384 * (12 * 18 + 6)
    assert asymmetric.loaded == 384 * (12 * 20 + 6)
    eight = tensor_bytes(384, 384, 4, group_size=32, symmetric=False, scale_bits=8)
    assert eight.stored == 384 * (12 * 17 + 6 + 2)
    assert eight.loaded == asymmetric.loaded
    assert tensor_bytes(1, 33, 4, group_size=32).stored == 2 * 18
    assert tensor_bytes(1, 33, 3).stored == 13 + 2


@settings(deadline=None, max_examples=8)
@given(recipes(SMALL))
def test_parameters_and_bytes_are_those_of_a_network_of_this_shape(recipe: Recipe) -> None:
    network = network_of_shape(SMALL, recipe)
    items = operations(SMALL, recipe)
    assert sum(item.parameters for item in items) == sum(p.numel() for p in network.parameters())
    assert sum(item.weight_bytes for item in items) == network_bytes(network, recipe)


@settings(deadline=None, max_examples=8)
@given(recipes(WHISPERS), st.sampled_from((1024, 30000)))
def test_a_shorter_vocabulary_has_the_parameters_bytes_and_logits_of_its_network(recipe: Recipe, kept: int) -> None:
    recipe = replace(recipe, vocabulary=kept, frequent_tokens=0)
    network = network_of_shape(WHISPERS, recipe)
    items = operations(WHISPERS, recipe)
    assert sum(item.parameters for item in items) == sum(p.numel() for p in network.parameters())
    assert sum(item.weight_bytes for item in items) == network_bytes(network, recipe)
    (logits,) = (item for item in items if item.name == "decoder.logits")
    assert logits.operation.n == network.decoder.token_embedding.num_embeddings


@pytest.mark.parametrize("vocabulary", [0, 16384])
def test_frequent_tokens_are_a_table_of_8_bits_beside_the_rest(vocabulary: int) -> None:
    plain = replace(
        Recipe.original(TINY_EN), embedding_bits=4, group_size=16, vocabulary=vocabulary, vocabulary_language="en"
    )
    recipe = replace(plain, frequent_tokens=1024)
    finer, rows = 1024 + (108 if vocabulary else 1608), TINY_EN.embedding_rows(vocabulary)
    before, after = operations(TINY_EN, plain), operations(TINY_EN, recipe)
    for total in ("flops", "parameters", "cache_bytes"):
        assert sum(getattr(item, total) for item in after) == sum(getattr(item, total) for item in before)
    for total in ("weight_bytes", "loaded_bytes", "mapped_bytes"):
        more = sum(getattr(item, total) for item in after) - sum(getattr(item, total) for item in before)
        assert more == finer * 384 // 2
    by_name = {item.name: item for item in after}
    shapes = {
        name: (by_name[f"decoder.{name}"].operation.weight_bits, by_name[f"decoder.{name}"].operation.n)
        for name in ("logits", "frequent.logits", "token_embedding", "frequent.token_embedding")
    }
    assert shapes == {
        "logits": (4, rows - finer),
        "frequent.logits": (8, finer),
        "token_embedding": (4, 384),
        "frequent.token_embedding": (8, 384),
    }
    assert by_name["decoder.logits"].activation_bytes == 4 * (384 + 2 * rows)
    unchanged = {item.name: item for item in before}
    assert {name for name, item in by_name.items() if unchanged.get(name) != item} == {f"decoder.{n}" for n in shapes}


@pytest.mark.parametrize("stored_bits", [16, 32])
def test_original_tiny_en_has_its_published_size(stored_bits: int) -> None:
    """37,184,256 parameters: tiny.en's state dict without the encoder's sinusoids, which are in memory only."""
    items = operations(TINY_EN, Recipe.original(TINY_EN, stored_bits=stored_bits))
    assert sum(item.parameters for item in items) == 37_184_256
    assert sum(item.weight_bytes for item in items) == 37_184_256 * stored_bits // 8
    assert sum(item.loaded_bytes for item in items) == 4 * (37_184_256 + 1500 * 384)
    assert sum(item.mapped_bytes for item in items) == 0
    look_ups = (51864 + 448) * 384 * stored_bits // 8
    widened = 4 * 37_184_256 if stored_bits == 16 else 0
    assert sum(item.loading_bytes for item in items) == look_ups + widened


@pytest.mark.parametrize("tokens", [1, 2, 29, 30])
def test_flops_of_the_decoder_are_the_sum_over_its_steps(tokens: int) -> None:
    recipe = Recipe.original(SMALL)
    state, positions, macs = 128, 1500, 0
    for keys in range(1, prompt_length(SMALL) + tokens + 1):
        for _ in range(2):
            macs += 4 * state * state + 2 * keys * state  # self-attention
            macs += 2 * state * state + 2 * positions * state  # cross-attention
            macs += 2 * state * 4 * state
        macs += state * 500
    found = sum(item.flops for item in operations(SMALL, recipe, tokens=tokens) if item.stage == "decoder")
    assert found == 2 * macs


def test_flops_of_the_encoder_follow_its_formula() -> None:
    recipe = replace(Recipe.original(TINY_EN), window_s=15)
    frames, positions, state = 1500, 750, 384
    macs = frames * 3 * 80 * state + positions * 3 * state * state
    macs += 4 * (positions * 12 * state * state + 2 * positions * positions * state)
    macs += 4 * 2 * positions * state * state  # keys and values of the decoder's cross-attention
    found = sum(item.flops for item in operations(TINY_EN, recipe) if item.stage == "encoder")
    assert found == 2 * macs


def test_caches_hold_keys_and_values_of_every_kept_layer() -> None:
    original = Recipe.original(SMALL)
    pruned = replace(original.decoder[1], heads=1, cross_heads=2)
    items = operations(SMALL, replace(original, decoder=(None, pruned)), tokens=20)
    steps = 2 + 20
    assert sum(item.cache_bytes for item in items) == 4 * 2 * (steps * 64 + 1500 * 128)


def test_a_low_rank_layer_multiplies_twice_and_has_one_bias() -> None:
    original = Recipe.original(SMALL)
    layer = replace(original.decoder[0], ffn_rank=48)
    items = operations(SMALL, replace(original, decoder=(layer, original.decoder[1])))
    by_name = {item.name: item for item in items}
    shapes = {"0.0": (128, 48), "0.1": (48, 512), "2.0": (512, 48), "2.1": (48, 128)}
    for name, (inputs, outputs) in shapes.items():
        item = by_name[f"decoder.0.ffn.{name}"]
        assert (item.operation.kind, item.operation.k, item.operation.n) == ("gemv", inputs, outputs)
        assert item.parameters == inputs * outputs + (outputs if name.endswith("1") else 0)
    assert not {"decoder.0.ffn.0", "decoder.1.ffn.0.0"} & by_name.keys()


def test_names_are_those_of_the_original_layers() -> None:
    original = Recipe.original(SMALL)
    items = operations(SMALL, replace(original, encoder=(None, original.encoder[1])), tokens=29)
    names = Counter(item.name for item in items)
    assert "encoder.1.attention.query_key_value" in names
    assert not any(name.startswith("encoder.0.") for name in names)
    assert set(names.values()) == {1}  # 31 steps, whose mean length is whole


def test_logits_share_the_table_of_the_embedding() -> None:
    by_name = {item.name: item for item in operations(TINY_EN, Recipe.original(TINY_EN))}
    assert by_name["decoder.token_embedding"].weight_bytes == 2 * 51864 * 384
    logits = by_name["decoder.logits"]
    assert (logits.weight_bytes, logits.parameters) == (0, 0)
    assert (logits.operation.k, logits.operation.n, logits.count) == (384, 51864, 32)


def test_the_encoders_graph_projects_keys_and_values_for_the_decoder() -> None:
    items = operations(SMALL, Recipe.original(SMALL))
    elsewhere = {item.name for item in items if not item.name.startswith(f"{item.stage}.")}
    kinds = ("key_value", "split_heads")
    assert elsewhere == {f"decoder.{layer}.cross_attention.{kind}" for layer in (0, 1) for kind in kinds}


def test_sessions_take_and_give_as_many_values_as_the_graphs() -> None:
    original = Recipe.original(SMALL)
    recipe = replace(original, decoder=(original.decoder[0], None))
    compressed = Compressed.original(network_of_shape(SMALL, recipe))
    by_name = {item.name: item for item in operations(SMALL, recipe, tokens=10)}
    for stage, graph in (
        ("encoder", encoder_graph(compressed, recipe)),
        ("decoder", decoder_graph(compressed, recipe)),
    ):
        exported = onnx.load_from_string(graph.to_bytes()).graph
        # a step does not ask for the queries to the audio
        asked = [output for output in exported.output if output.name != "audio_query"]
        assert by_name[f"{stage}.session"].operation.n == len(exported.input) + len(asked)
    assert (by_name["encoder.session"].count, by_name["decoder.session"].count) == (1, 12)


@pytest.mark.parametrize("stored_bits", [16, 32])
def test_every_step_streams_the_decoder_and_the_keys_of_the_audio(stored_bits: int) -> None:
    """All that the decoder's graph multiplies by, counted in a network of this shape; biases and the like are few."""
    recipe = Recipe.original(TINY_EN, stored_bits=stored_bits)
    decoder = network_of_shape(TINY_EN, recipe).decoder
    projected = ("cross_attn.key", "cross_attn.value")
    weights = sum(
        p.numel() for name, p in decoder.named_parameters() if not any(matrix in name for matrix in projected)
    )
    keys_and_values = 4 * 2 * 1500 * 384
    one_step = [item.operation for item in operations(TINY_EN, recipe, tokens=30) if item.stage == "decoder"]
    assert sum(map(streamed_bytes, one_step)) == pytest.approx(4 * (weights + keys_and_values), rel=0.02)


def test_precision_reaches_the_kernels() -> None:
    """Weights in groups are multiplied in int8 blocks; float weights see a rounded input; convolutions are float32."""
    original = Recipe.original(SMALL)
    recipe = replace(
        original,
        encoder=(replace(original.encoder[0], attention_bits=4, ffn_bits=16), original.encoder[1]),
        convolution_bits=8,
        activation_bits=8,
        group_size=32,
    )
    found = {item.name: item.operation for item in operations(SMALL, recipe)}
    precisions = {
        name: (found[name].kind, found[name].weight_bits, found[name].activation_bits, found[name].group_size)
        for name in ("encoder.0.attention.out", "encoder.0.ffn.0", "encoder.conv1", "decoder.logits")
    }
    assert precisions == {
        "encoder.0.attention.out": ("gemm", 4, 8, 32),
        "encoder.0.ffn.0": ("gemm", 32, 32, 0),
        "encoder.conv1": ("convolution", 32, 32, 0),
        "decoder.logits": ("gemv", 32, 32, 0),
    }
    assert found["encoder.0.ffn.0_dynamic_quantise"].activation_bits == 8
    assert "encoder.0.ffn.0_dequantise" in found
    assert "encoder.0.attention.out_dynamic_quantise" not in found


@settings(deadline=None)
@given(recipes(SMALL))
def test_no_operation_holds_a_matrix_of_scores(recipe: Recipe) -> None:
    """Attention is one kernel: what is alive grows with the positions, not with their square."""
    short, long = (operations(SMALL, replace(recipe, window_s=window_s), audio_s=1) for window_s in (15.0, 30.0))
    for once, twice in zip(short, long, strict=True):
        assert twice.activation_bytes == once.activation_bytes * (2 if once.stage == "encoder" else 1)


def test_memory_of_the_convolutions_and_the_embedding_is_that_of_what_is_unpacked_or_mapped() -> None:
    """Quantised convolutions are multiplied as float32; a quantised table stays mapped beside the logits' kernel."""
    recipe = replace(Recipe.original(SMALL), convolution_bits=8, embedding_bits=4, group_size=32)
    by_name = {item.name: item for item in operations(SMALL, recipe)}
    conv1, table = by_name["encoder.conv1"], by_name["decoder.token_embedding"]
    codes, biases = 128 * 240 + 4 * 128, 4 * 128
    assert conv1.loaded_bytes == codes + 4 * 128 * 240 + biases
    assert (table.mapped_bytes, table.weight_bytes) == (500 * 4 * 18, 500 * 4 * 18)
    assert table.loaded_bytes == 500 * 4 * 20


def test_multilingual_prompts_are_longer() -> None:
    steps = {
        vocabulary: max(
            item.count for item in operations(dims, Recipe.original(dims), tokens=10) if "logits" in item.name
        )
        for vocabulary, dims in ((51864, TINY_EN), (51865, replace(TINY_EN, n_vocab=51865)))
    }
    assert steps == {51864: 12, 51865: 14}


@pytest.mark.parametrize("audio_s", [0, -1, 30.5, float("nan")])
def test_impossible_audio_is_refused(audio_s: float) -> None:
    with pytest.raises(InputError, match="longer than 0 s and at most 30 s"):
        operations(SMALL, Recipe.original(SMALL), audio_s=audio_s)


@pytest.mark.parametrize("tokens", [0, 63])
def test_impossible_tokens_are_refused(tokens: int) -> None:
    with pytest.raises(InputError, match=f"{tokens} tokens: must be 1 to 62"):
        operations(SMALL, Recipe.original(SMALL), tokens=tokens)


def test_recipe_of_another_model_is_refused() -> None:
    with pytest.raises(InputError, match="2 encoder layers"):
        operations(SMALL, Recipe.original(TINY_EN))
