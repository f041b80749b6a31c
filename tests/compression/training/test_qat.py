"""What is trained is what is exported, bit for bit, and gradients get through."""

from dataclasses import replace

import pytest
import torch

from compression.calibration.calibration import measure
from compression.compress import compress
from compression.recipe.recipe import Recipe
from compression.recipe.recovery_spec import RecoveryMethod
from compression.techniques.activations import BlockLinear, DynamicLinear, RoundingLinear, StaticLinear
from compression.techniques.compressed import Compressed
from compression.techniques.grids import Grid, round_to_grid
from compression.techniques.straight_through import straight_through
from compression.techniques.trained_weights import on_trained_grid, parameter_of
from compression.training.batches import batch_of
from compression.training.run import recovered_recipe
from compression.training.settings import TrainingSettings
from compression.training.subject import Subject
from compression.training.whisper_student import Parts, WhisperStudent
from compression.whisper.load import LoadedModel
from tests.compression.training.data import SAMPLES, RandomBatches, bits
from tests.compression.training.data import subject as subject_with
from tests.networks import random_network
from tests.strategies import small_dimensions

SETTINGS = TrainingSettings(train_embedding=True)
BATCH = batch_of(RandomBatches().clips[:3])


def trained(
    subject: Subject, part: Parts = "both", method: RecoveryMethod = "qat", *, steps: int = 3, rate: float = 0.01
) -> WhisperStudent:
    """A student after some steps down a made-up slope."""
    student = WhisperStudent(subject, part, method, SETTINGS)
    optimiser = torch.optim.SGD([p for p in student.parameters() if p.requires_grad], lr=rate)
    for _ in range(steps):
        heard = student(BATCH)
        optimiser.zero_grad()
        terms = [values.square().mean() for values in (heard.encoded, heard.logits) if values is not None]
        torch.stack(terms).sum().backward()
        optimiser.step()
    return student


def exported(subject: Subject, student: WhisperStudent) -> Compressed:
    weights = student.weights()
    recipe, weights = recovered_recipe(subject, "qat", weights)
    return compress(subject.model, recipe, subject.calibration, weights)


@pytest.mark.parametrize("part", ["encoder", "decoder", "both"])
@pytest.mark.parametrize(
    "changes",
    [
        {"bits": 4, "group_size": 32},
        {"bits": 3, "symmetric": False, "group_size": 16},
        {"bits": 8, "activation_bits": 8},
        {"bits": 4, "activation_bits": 8, "group_size": 32},
        {"bits": 8, "activation_bits": 16},
        {"bits": 8, "activation_bits": 8, "activation_ranges": "static", "smoothing": 0.5, "rounding": "calibrated"},
    ],
    ids=str,
)
def test_the_network_in_training_computes_what_the_exported_one_computes(
    small_model: LoadedModel, part: Parts, changes: dict[str, int]
) -> None:
    subject = replace(bits(small_model, **changes), calibration=measure(small_model, SAMPLES))  # type: ignore[arg-type]
    student = trained(subject, part)
    with torch.no_grad():
        seen = student(BATCH)
        artifact = WhisperStudent(replace(subject), part, "distill", SETTINGS)
        artifact.network = exported(subject, student).network
        expected = artifact(BATCH)
    for ours, theirs in ((seen.encoded, expected.encoded), (seen.logits, expected.logits)):
        assert (ours is None) == (theirs is None)
        if ours is not None and theirs is not None:
            assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (("distill", "decoder"), ("qat", "encoder")),
        (("qat", "encoder"), ("distill", "decoder")),
        (("qat", "decoder"), ("qat", "encoder")),
    ],
    ids=str,
)
def test_what_a_second_training_leaves_alone_is_stored_as_it_was(
    small_model: LoadedModel, first: tuple[RecoveryMethod, Parts], second: tuple[RecoveryMethod, Parts]
) -> None:
    subject = replace(
        bits(small_model, 4, group_size=32, rounding="calibrated"), calibration=measure(small_model, SAMPLES)
    )
    for method, part in (first, second):
        before = subject.compressed().network
        student = trained(subject, part, method)
        recipe, weights = recovered_recipe(subject, method, student.weights())
        assert Recipe.from_json(recipe.to_json()) == recipe
        subject = replace(subject, recipe=recipe, recovered=weights)
        after, other = subject.compressed().network, "encoder" if part == "decoder" else "decoder"
        for name, values in after.named_parameters():
            if name.startswith(other):
                assert torch.equal(values, before.get_parameter(name)), name
                assert torch.equal(values, student.network.get_parameter(name)), name


def test_training_moves_the_codes(small_model: LoadedModel) -> None:
    subject = bits(small_model, 4, group_size=32)
    before, after = subject.compressed(), exported(subject, trained(subject, steps=20, rate=1000.0))
    assert after.matrices.keys() == before.matrices.keys()
    moved = {
        name.split(".")[0]
        for name, matrix in after.matrices.items()
        if not torch.equal(matrix.codes, before.matrices[name].codes)
    }
    assert moved == {"encoder", "decoder"}


@pytest.mark.parametrize(
    "changes",
    [{}, {"symmetric": False}, {"scale_bits": 8}],
    ids=str,
)
@pytest.mark.parametrize("rounding", ["nearest", "calibrated"])
@pytest.mark.parametrize("method", ["qat", "scales"])
def test_training_begins_with_what_is_stored(
    small_model: LoadedModel, changes: dict[str, object], rounding: str, method: RecoveryMethod
) -> None:
    """Which calibrated rounding chose, with extremes of groups that are not at the ends of their grids."""
    subject = bits(small_model, 4, group_size=32, rounding=rounding, **changes)
    subject = replace(subject, calibration=measure(small_model, SAMPLES))
    student = WhisperStudent(subject, "both", method, SETTINGS)
    recipe, weights = recovered_recipe(subject, method, student.weights())
    begun = compress(subject.model, recipe, subject.calibration, weights).network
    for name, values in subject.compressed().network.named_parameters():
        assert torch.equal(values, begun.get_parameter(name)), name


@pytest.mark.parametrize("method", ["qat", "scales"])
def test_rows_on_two_grids_are_trained_on_both(method: RecoveryMethod) -> None:
    """The embedding's, where frequent tokens have more bits."""
    dimensions = small_dimensions(layers=1, state=64, vocabulary=51864)
    network = random_network(dimensions)
    model = LoadedModel(name="random", digest="0", dimensions=dimensions, stored_bits=16, network=network)
    subject = subject_with(model, embedding_bits=4, group_size=32, scale_bits=8, frequent_tokens=512)
    student = WhisperStudent(subject, "decoder", method, SETTINGS)
    embedding = student.network.decoder.token_embedding
    before = embedding.weight.detach().clone()
    assert torch.equal(before, subject.compressed().network.decoder.token_embedding.weight)
    optimiser = torch.optim.Adam([p for p in student.parameters() if p.requires_grad], lr=0.01)
    embedding.weight.square().sum().backward()
    optimiser.step()
    recipe, weights = recovered_recipe(subject, method, student.weights())
    after = compress(model, recipe, subject.calibration, weights).network.decoder.token_embedding.weight
    assert torch.equal(after, embedding.weight)
    finer, coarser = after[:512], after[512:50256]
    assert not torch.equal(finer, before[:512])
    assert not torch.equal(coarser, before[512:50256])


def test_weights_at_their_nearest_points_stay_where_they_lie_in_their_cells(small_model: LoadedModel) -> None:
    """So that a second training goes on from the first."""
    subject = bits(small_model, 4, group_size=32)
    weights = WhisperStudent(subject, "both", "qat", SETTINGS).weights()
    name = "encoder.blocks.0.mlp.0.weight"
    assert torch.equal(weights[name], small_model.network.get_parameter(name))


def test_another_training_leaves_no_grid_of_an_earlier_one(small_model: LoadedModel) -> None:
    subject = bits(small_model, 4, group_size=32)
    recipe, weights = recovered_recipe(subject, "qat", trained(subject).weights())
    again = replace(subject, recipe=recipe, recovered=weights)
    _, complete = recovered_recipe(again, "distill", trained(again, "encoder", "distill").weights())
    assert {name.partition(".")[0] for name in complete if name.endswith(".scales")} == {"decoder"}


def test_only_the_trained_part_has_gradients_and_the_rest_is_the_artifacts(small_model: LoadedModel) -> None:
    subject = bits(small_model, 4, group_size=32)
    student = WhisperStudent(subject, "decoder", "qat", SETTINGS.model_copy(update={"train_embedding": False}))
    names = set(map(parameter_of, student.weights()))
    assert all(name.startswith("decoder.") for name in names)
    assert "decoder.token_embedding.weight" not in names
    assert names | {"decoder.token_embedding.weight"} == {
        name for name, _ in small_model.network.named_parameters() if name.startswith("decoder.")
    }
    artifact = subject.compressed().network
    assert torch.equal(student.network.decoder.token_embedding.weight, artifact.decoder.token_embedding.weight)
    assert torch.equal(student.network.encoder.conv1.weight, artifact.encoder.conv1.weight)


@pytest.mark.parametrize("method", ["distill", "qat"])
def test_low_rank_factors_are_trained_themselves(small_model: LoadedModel, method: RecoveryMethod) -> None:
    whole = bits(small_model, 4, group_size=32)
    encoder, decoder = (
        tuple(layer and replace(layer, ffn_rank=24) for layer in layers)
        for layers in (whole.recipe.encoder, whole.recipe.decoder)
    )
    recipe = replace(whole.recipe, encoder=encoder, decoder=decoder)
    subject = replace(whole, recipe=recipe, calibration=measure(small_model, SAMPLES))
    student = trained(subject, method=method)
    name = "encoder.blocks.0.mlp.2.0.weight"
    assert student.weights()[name].shape == (24, 256)
    assert not torch.equal(student.weights()[name], subject.unrounded().network.get_parameter(name))
    network = exported(subject, student).network
    for index, factor in enumerate(network.get_submodule("encoder.blocks.0.mlp.2").children()):
        parameter = f"encoder.blocks.0.mlp.2.{index}.weight"
        values, how = student.weights()[parameter], (Grid(bits=4, group_size=32), student.weights(), parameter)
        found = on_trained_grid(values, *how) if method == "qat" else round_to_grid(values, how[0])
        assert torch.equal(factor.get_parameter("weight"), found[0])


def test_distillation_starts_from_the_weights_before_rounding(small_model: LoadedModel) -> None:
    subject = bits(small_model, 4, group_size=32)
    weights = WhisperStudent(subject, "both", "distill", SETTINGS).weights()
    for name, values in weights.items():
        assert torch.equal(values, small_model.network.get_parameter(name)), name


def test_a_straight_through_gradient_is_that_of_the_identity() -> None:
    values = torch.randn(5, requires_grad=True)
    rounded = straight_through(values, values.detach().round())
    assert torch.equal(rounded, values.detach().round())
    (rounded * torch.arange(5.0)).sum().backward()
    assert torch.equal(values.grad, torch.arange(5.0))  # type: ignore[arg-type]
    constant = torch.ones(3)
    assert straight_through(torch.zeros(3), constant) is constant


def layers() -> list[RoundingLinear]:
    from whisper.model import Linear  # noqa: PLC0415 - only here

    linear = Linear(32, 4)
    return [
        DynamicLinear(linear, bits=8, range_over="token"),
        BlockLinear(linear, block=16),
        StaticLinear(linear, bits=8, low=-1.0, high=1.0),
    ]


@pytest.mark.parametrize("layer", layers(), ids=lambda layer: type(layer).__name__)
def test_rounded_inputs_pass_the_gradient_of_a_plain_layer_except_where_they_are_clipped(layer: RoundingLinear) -> None:
    x = (3 * torch.randn(2, 6, 32, generator=torch.Generator().manual_seed(0))).requires_grad_()
    slope = torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(1))
    (layer(x) * slope).sum().backward()
    expected = slope @ layer.weight.detach()
    if isinstance(layer, StaticLinear):
        expected = expected * (x.detach().abs() <= 1)
    torch.testing.assert_close(x.grad, expected)
