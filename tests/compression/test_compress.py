from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from whisper.model import Linear, Whisper

from common.errors import CompressionError, InputError
from compression.calibration.calibration import Calibration, CalibrationSample, calibration_loss, measure
from compression.calibration.removal_order import departures, ridged
from compression.compress import compress, unrounded
from compression.recipe.recipe import Recipe
from compression.techniques.activations import DynamicLinear, StaticLinear
from compression.techniques.grids import Grid, round_to_grid
from compression.techniques.pruning import repaired_projection
from compression.whisper.load import LoadedModel
from compression.whisper.network import encode
from compression.whisper.sites import output_projection, sites, unit_count
from evaluators.speech.cached_files import read_cached


def original(model: LoadedModel) -> Recipe:
    return Recipe.original(model.dimensions, stored_bits=model.stored_bits)


def pruned(model: LoadedModel, *, heads: int = 1, ffn_channels: int = 96) -> Recipe:
    recipe = original(model)
    return replace(
        recipe,
        encoder=tuple(e and replace(e, heads=heads, ffn_channels=ffn_channels) for e in recipe.encoder),
        decoder=tuple(
            d and replace(d, heads=heads, cross_heads=heads, ffn_channels=ffn_channels) for d in recipe.decoder
        ),
    )


def logits(network: Whisper, sample: CalibrationSample) -> torch.Tensor:
    with torch.inference_mode():
        return network.decoder(sample.tokens[None], encode(network, sample.mel[None]))


def test_original_recipe_gives_the_original_logits(model: LoadedModel, samples: list[CalibrationSample]) -> None:
    network = compress(model, original(model)).network
    assert torch.equal(logits(network, samples[0]), logits(model.network, samples[0]))


def test_the_model_is_left_alone(model: LoadedModel, calibration: Calibration) -> None:
    before = {name: value.clone() for name, value in model.network.state_dict().items()}
    compress(model, replace(pruned(model), embedding_bits=4, activation_bits=8), calibration)
    after = model.network.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("stored_bits", [16, 32])
def test_no_values_are_shared_with_the_model(model: LoadedModel, calibration: Calibration, stored_bits: int) -> None:
    """Whoever trains what comes out must not train the model."""
    recipe = Recipe.original(model.dimensions, stored_bits=stored_bits)
    own = {tensor.data_ptr() for tensor in model.network.state_dict().values() if tensor.layout == torch.strided}
    for network in (compress(model, recipe).network, unrounded(model, recipe, calibration).network):
        assert not own & {tensor.data_ptr() for tensor in network.state_dict().values()}


def test_tensors_really_shrink(model: LoadedModel, calibration: Calibration) -> None:
    recipe = pruned(model)
    recipe = replace(recipe, decoder=(None, recipe.decoder[1]))
    network = compress(model, recipe, calibration).network
    assert len(network.decoder.blocks) == 1
    block = network.decoder.blocks[0]
    for attention in (block.attn, block.cross_attn):
        assert attention.query.weight.shape == attention.key.weight.shape == attention.value.weight.shape == (32, 64)
        assert attention.out.weight.shape == (64, 32)
        assert attention.n_head == 1
    assert block.mlp[0].weight.shape == (96, 64)
    assert block.mlp[2].weight.shape == (64, 96)
    assert logits(network, CalibrationSample(mel=torch.zeros(80, 100), tokens=torch.arange(4), prompt_length=1)).shape


def test_units_that_contribute_a_constant_leave_without_a_trace(
    model: LoadedModel, samples: list[CalibrationSample], small_network: Whisper
) -> None:
    """Channels with no incoming weights give GELU(bias), a constant that folding must move into the bias."""
    dead = load_from(model, small_network)
    for site in sites(dead.network):
        if site.units == "ffn_channels":
            block = getattr(dead.network, site.stack).blocks[site.layer]
            block.mlp[0].weight.data[::4] = 0.0
    calibration = measure(dead, samples)
    recipe = replace(pruned(dead, heads=2, ffn_channels=192), importance="combined", refit=False)
    network = compress(dead, recipe, calibration).network
    assert torch.allclose(logits(network, samples[0]), logits(dead.network, samples[0]), atol=1e-3)
    assert network.encoder.blocks[0].mlp[0].weight.shape[0] == 192


def load_from(model: LoadedModel, network: Whisper) -> LoadedModel:
    copy = Whisper(network.dims).eval()
    copy.load_state_dict(network.state_dict())
    return replace(model, network=copy)


def test_refit_is_the_least_squares_solution(model: LoadedModel, samples: list[CalibrationSample]) -> None:
    """Against numpy's lstsq on the raw activations, for the encoder's FFN."""
    calibration = measure(model, samples)
    site = next(s for s in sites(model.network) if s.units == "ffn_channels")
    projection = output_projection(model.network, site)
    inputs: list[torch.Tensor] = []
    with projection.register_forward_pre_hook(lambda _, x: inputs.append(x[0].flatten(0, 1))), torch.no_grad():
        for sample in samples:
            encode(model.network, sample.mel[None])
    x = torch.cat(inputs).double()
    target = x @ projection.weight.detach().double().T + projection.bias.detach().double()
    columns = torch.arange(0, 256, 8)
    with_one = np.concatenate([x[:, columns].numpy(), np.ones((len(x), 1))], 1)
    exact = np.linalg.lstsq(with_one, target.detach().numpy(), rcond=None)[0]
    best = float(((with_one @ exact - target.numpy()) ** 2).mean())

    def error(*, refit: bool) -> float:
        layer = repaired_projection(projection, columns, calibration.inputs[site.projection], refit=refit).double()
        with torch.no_grad():
            return float((layer(x[:, columns]) - target).square().mean())

    assert best <= error(refit=True) <= 1.03 * best
    assert error(refit=True) < error(refit=False)


def test_the_error_of_an_iterative_recipe_is_what_the_departures_add_up_to(
    model: LoadedModel, calibration: Calibration
) -> None:
    recipe = replace(pruned(model, heads=1, ffn_channels=96), importance="iterative")
    network = unrounded(model, recipe, calibration).network
    for site in sites(model.network):
        weight = output_projection(model.network, site).weight.detach().double()
        covariance = torch.from_numpy(calibration.inputs[site.projection].covariance)
        units = unit_count(model.network, site)
        order, rises = departures(weight, covariance, units=units)
        left = units - (96 if site.units == "ffn_channels" else 1)
        stays = torch.ones(units, dtype=torch.bool)
        stays[order[:left]] = False
        change = weight.clone()
        change[:, stays.repeat_interleave(weight.shape[1] // units)] -= output_projection(network, site).weight.detach()
        error = float((change @ ridged(covariance) @ change.T).trace())
        assert error == pytest.approx(float(rises[:left].sum()), rel=1e-3)


def test_combined_importance_of_a_head_is_the_slope_of_the_loss(
    model: LoadedModel, samples: list[CalibrationSample], calibration: Calibration
) -> None:
    """Against a finite difference: the loss's change when a head's output is scaled by 1 - epsilon."""
    scores = calibration.importance("combined")
    epsilon = 0.01
    for site in sites(model.network):
        if site.units == "ffn_channels":
            continue
        projection = output_projection(model.network, site)
        for head in range(2):

            def scale(_: Linear, x: tuple[torch.Tensor], head: int = head) -> tuple[torch.Tensor]:
                scaled = x[0].clone()
                scaled[..., head * 32 : head * 32 + 32] *= 1 - epsilon
                return (scaled,)

            slopes = []
            with torch.no_grad():
                for sample in samples:
                    before = calibration_loss(model.network, sample)
                    with projection.register_forward_pre_hook(scale):
                        slopes.append(float((calibration_loss(model.network, sample) - before).abs()) / epsilon)
            assert scores[site.key][head] == pytest.approx(np.mean(slopes), rel=0.15, abs=2e-3)


def test_combined_importance_of_a_channel_is_its_spread_times_its_column(
    model: LoadedModel, calibration: Calibration
) -> None:
    for site in sites(model.network):
        if site.units == "ffn_channels":
            covariance = calibration.inputs[site.projection].covariance
            weight = output_projection(model.network, site).weight.detach().numpy()
            expected = np.sqrt(np.diag(covariance)) * np.linalg.norm(weight, axis=0)
            assert np.allclose(calibration.importances[site.key]["combined"], expected, rtol=1e-3)


@pytest.mark.parametrize("activation_bits", [32, 8])
def test_the_codes_are_those_of_the_weights(model: LoadedModel, calibration: Calibration, activation_bits: int) -> None:
    recipe = replace(pruned(model), embedding_bits=4, convolution_bits=8, activation_bits=activation_bits)
    recipe = recipe.with_each_layer(attention_bits=16, ffn_bits=4)
    compressed = compress(model, recipe, calibration)
    stacked = {f"{stack}.blocks.{i}" for stack in ("encoder", "decoder") for i in range(len(getattr(recipe, stack)))}
    expected = {f"{block}.mlp.{place}" for block in stacked for place in (0, 2)}
    assert compressed.matrices.keys() == expected | {"encoder.conv1", "encoder.conv2", "decoder.token_embedding"}
    for name, matrix in compressed.matrices.items():
        weight = compressed.network.get_submodule(name).get_parameter("weight")
        assert matrix.bits == (8 if "conv" in name else 4)
        assert torch.equal(matrix.dequantised().view_as(weight), weight)
        assert compressed.codes[compressed.network.get_submodule(name)] is matrix


def test_weights_are_stored_at_the_recipes_bits(model: LoadedModel) -> None:
    recipe = original(model)
    recipe = replace(
        recipe,
        encoder=(replace(recipe.encoder[0], attention_bits=8, ffn_bits=3),),
        decoder=(replace(recipe.decoder[0], attention_bits=2), recipe.decoder[1]),
        embedding_bits=5,
        convolution_bits=7,
        group_size=16,
        symmetric=False,
    )
    network, source = compress(model, recipe).network, model.network
    expected = {
        "encoder.blocks.0.attn.query": Grid(bits=8, group_size=16, symmetric=False),
        "encoder.blocks.0.mlp.2": Grid(bits=3, group_size=16, symmetric=False),
        "decoder.blocks.0.cross_attn.out": Grid(bits=2, group_size=16, symmetric=False),
        "decoder.blocks.0.mlp.0": Grid(bits=16),
        "decoder.blocks.1.attn.key": Grid(bits=16),
        "decoder.token_embedding": Grid(bits=5, group_size=16, symmetric=False),
        "encoder.conv2": Grid(bits=7, symmetric=False),
    }
    for name, grid in expected.items():
        weight = source.get_submodule(name).weight.detach()
        assert torch.equal(network.get_submodule(name).weight, round_to_grid(weight, grid)[0]), name


def test_a_recipe_makes_the_network_of_its_canonical_form(model: LoadedModel, calibration: Calibration) -> None:
    """Nothing is smoothed where activations stay as they are, nor does anything else act that has no effect."""
    recipe = replace(
        original(model).with_each_layer(attention_bits=4, ffn_bits=4), smoothing=0.5, activation_ranges="static",
        range_estimator="mse", refit=True, vocabulary_language="de",
    )  # fmt: skip
    canonical = recipe.canonical(model.dimensions)
    assert canonical == original(model).with_each_layer(attention_bits=4, ffn_bits=4)
    made, expected = (
        compressed.network.state_dict()
        for compressed in (compress(model, recipe, calibration), compress(model, canonical))
    )
    assert made.keys() == expected.keys()
    assert all(torch.equal(made[name], values) for name, values in expected.items())


@pytest.mark.parametrize("size", [1, 3, 100, 256])
def test_any_group_size_up_to_the_widest_input_rounds_group_by_group(model: LoadedModel, size: int) -> None:
    recipe = replace(original(model).with_each_layer(attention_bits=4, ffn_bits=4), group_size=size, activation_bits=8)
    network = compress(model, recipe).network
    for name in ("encoder.blocks.0.attn.query", "decoder.blocks.0.mlp.2"):
        weight = model.network.get_submodule(name).weight.detach()
        groups = [round_to_grid(part, Grid(bits=4))[0] for part in weight.split(size, dim=1)]
        assert torch.equal(network.get_submodule(name).weight, torch.cat(groups, dim=1)), name
    assert network(torch.zeros(1, 80, 3000), torch.tensor([[1, 2]])).isfinite().all()


def test_activations_are_quantised_where_the_runtime_does(model: LoadedModel, calibration: Calibration) -> None:
    recipe = replace(original(model), decoder=(None, original(model).decoder[1]), activation_bits=8)
    dynamic = compress(model, recipe).network
    linears = {name: layer for name, layer in dynamic.named_modules() if isinstance(layer, Linear)}
    assert all(isinstance(layer, DynamicLinear) for layer in linears.values())
    assert linears["decoder.blocks.0.cross_attn.key"].range_dimensions == (-2, -1)
    assert linears["decoder.blocks.0.cross_attn.query"].range_dimensions == (-1,)
    static = compress(model, replace(recipe, activation_ranges="static"), calibration).network
    layer = static.get_submodule("decoder.blocks.0.mlp.0")
    assert isinstance(layer, StaticLinear)
    inputs = calibration.inputs["decoder.blocks.1.mlp.0"]
    assert (layer.low, layer.high) == pytest.approx((inputs.low.min(), inputs.high.max()))


def test_calibration_survives_the_disk(calibration: Calibration, tmp_path: Path) -> None:
    calibration.save(tmp_path / "calibration.npz")
    loaded = Calibration.load(tmp_path / "calibration.npz")
    assert loaded.importances.keys() == calibration.importances.keys()
    assert loaded.gradient_squares.keys() == calibration.gradient_squares.keys()
    for name, squares in calibration.gradient_squares.items():
        assert np.array_equal(loaded.gradient_squares[name], squares)
    for key, measures in calibration.importances.items():
        for measure_name, scores in measures.items():
            assert np.array_equal(loaded.importances[key][measure_name], scores)
    assert loaded.layer_importance == calibration.layer_importance
    assert loaded.inputs.keys() == calibration.inputs.keys()
    for name, inputs in calibration.inputs.items():
        for part in fields(inputs):
            assert np.array_equal(getattr(loaded.inputs[name], part.name), getattr(inputs, part.name))


@pytest.mark.parametrize("damage", ["missing", "short", "changed"])
def test_a_damaged_calibration_is_none(calibration: Calibration, tmp_path: Path, damage: str) -> None:
    calibration.save(tmp_path / "calibration.npz")
    file = tmp_path / "calibration.covariances.npy"
    values = file.read_bytes()
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(values[:-4] if damage == "short" else values[:-4] + b"oops")
    assert read_cached(tmp_path / "calibration.npz", Calibration.load) is None


def test_what_cannot_be_done_is_said(model: LoadedModel) -> None:
    with pytest.raises(CompressionError, match="needs calibration speech"):
        compress(model, pruned(model))
    static = replace(original(model), activation_bits=8, activation_ranges="static")
    calibrated = replace(original(model), embedding_bits=4, rounding="calibrated")
    for recipe in (static, calibrated):
        with pytest.raises(CompressionError, match="needs calibration speech"):
            compress(model, recipe)
    with pytest.raises(InputError, match="2 decoder layers"):
        compress(model, replace(original(model), decoder=original(model).decoder[:1]))
    with pytest.raises(CompressionError, match="no speech"):
        measure(model, [])


def test_a_layers_importance_is_what_the_loss_rises_by_without_it(
    model: LoadedModel, samples: list[CalibrationSample], calibration: Calibration
) -> None:
    """Against recipes without the layer; an encoder of one layer cannot be without it, so only the decoder's."""
    recipe = original(model)

    def loss(network: Whisper) -> float:
        with torch.no_grad():
            return float(np.mean([calibration_loss(network, sample) for sample in samples]))

    for index in range(2):
        decoder = tuple(None if other == index else layer for other, layer in enumerate(recipe.decoder))
        expected = loss(compress(model, replace(recipe, decoder=decoder)).network) - loss(model.network)
        assert calibration.layer_importance[f"decoder.{index}"] == pytest.approx(expected, abs=1e-5)
    assert calibration.layer_importance.keys() == {"encoder.0", "decoder.0", "decoder.1"}
