"""Training the scales alone: what is trained is what is exported, and the codes stay."""

from dataclasses import replace

import pytest
import torch

from common.errors import InputError
from compression.calibration.calibration import measure
from compression.compress import compress
from compression.recipe.recipe import Recipe
from compression.techniques.compressed import Compressed
from compression.training.batches import batch_of
from compression.training.qat import FACTOR_SPEED
from compression.training.run import WhisperTraining, recovered_recipe
from compression.training.settings import TrainingSettings
from compression.training.subject import Subject
from compression.training.whisper_student import Parts, WhisperStudent
from compression.whisper.load import LoadedModel
from tests.compression.training.data import SAMPLES, RandomBatches, bits

SETTINGS = TrainingSettings()
BATCH = batch_of(RandomBatches().clips[:3])
RECIPES = [
    {"bits": 4, "group_size": 32},
    {"bits": 4, "group_size": 16, "scale_bits": 8, "rounding": "calibrated"},
    {"bits": 4, "group_size": 32, "scale_bits": 8, "symmetric": False, "rounding": "calibrated"},
    {"bits": 8, "activation_bits": 8},
]


def subject_of(model: LoadedModel, changes: dict[str, object]) -> Subject:
    return replace(bits(model, **changes), calibration=measure(model, SAMPLES))  # type: ignore[arg-type]


def trained(subject: Subject, part: Parts = "both", *, rate: float = 0.0003) -> WhisperStudent:
    """A student after some steps down a made-up slope."""
    student = WhisperStudent(subject, part, "scales", SETTINGS)
    optimiser = torch.optim.Adam([p for p in student.parameters() if p.requires_grad], lr=rate)
    for _ in range(3):
        answer = student(BATCH)
        terms = [values.square().mean() for values in (answer.encoded, answer.logits) if values is not None]
        optimiser.zero_grad()
        torch.stack(terms).sum().backward()
        optimiser.step()
    return student


def exported(subject: Subject, student: WhisperStudent) -> Compressed:
    recipe, weights = recovered_recipe(subject, "scales", student.weights())
    assert Recipe.from_json(recipe.to_json()) == recipe
    return compress(subject.model, recipe, subject.calibration, weights)


@pytest.mark.parametrize("part", ["encoder", "decoder", "both"])
@pytest.mark.parametrize("changes", RECIPES, ids=str)
def test_the_network_in_training_computes_what_the_exported_one_computes(
    small_model: LoadedModel, part: Parts, changes: dict[str, object]
) -> None:
    subject = subject_of(small_model, changes)
    student = trained(subject, part)
    artifact = exported(subject, student)
    with torch.no_grad():
        answer, same = student(BATCH), WhisperStudent(subject, part, "distill", SETTINGS)
        same.network = artifact.network
        expected = same(BATCH)
    for ours, theirs in ((answer.encoded, expected.encoded), (answer.logits, expected.logits)):
        assert (ours is None) == (theirs is None)
        if ours is not None and theirs is not None:
            assert torch.equal(ours, theirs)


@pytest.mark.parametrize("changes", RECIPES, ids=str)
def test_scales_change_and_codes_but_for_a_groups_extremes_do_not(
    small_model: LoadedModel, changes: dict[str, object]
) -> None:
    subject = subject_of(small_model, changes)
    before, after = subject.compressed(), exported(subject, trained(subject))
    assert after.matrices.keys() == before.matrices.keys()
    for name, matrix in after.matrices.items():
        assert not torch.equal(matrix.dequantised(), before.matrices[name].dequantised()), name
        moved = (matrix.codes != before.matrices[name].codes).float().mean()
        assert moved <= 2 / matrix.codes.shape[-1], name


def test_nothing_but_scales_is_trained(small_model: LoadedModel) -> None:
    """Not what is stored as it is either: vectors, and matrices of 16 bits."""
    subject = subject_of(small_model, {"bits": 4, "group_size": 32})
    encoder = tuple(
        layer and replace(layer, ffn_rank=24, attention_bits=16, ffn_bits=16) for layer in subject.recipe.encoder
    )
    recipe = replace(subject.recipe, encoder=encoder, convolution_bits=16)
    subject = replace(subject, recipe=recipe)
    stored = WhisperStudent(subject, "both", "scales", SETTINGS).network
    for name in ("encoder.blocks.0.mlp.2.0.weight", "encoder.blocks.0.mlp_ln.weight"):
        assert torch.equal(stored.get_parameter(name), subject.compressed().network.get_parameter(name))
    before, after = subject.compressed(), exported(subject, trained(subject))
    changed = {
        name
        for name, values in after.network.named_parameters()
        if not torch.equal(values, before.network.get_parameter(name))
    }
    assert changed == {f"{name}.weight" for name in before.matrices}
    assert "decoder.token_embedding.weight" in changed
    assert "encoder.conv1.weight" not in changed


def test_a_row_of_scales_of_8_bits_moves_by_less_than_their_step(small_model: LoadedModel) -> None:
    """The factor of a row goes to the row's scale; the codes of the scales stay."""
    subject = subject_of(small_model, {"bits": 4, "group_size": 16, "scale_bits": 8})
    student = WhisperStudent(subject, "both", "scales", SETTINGS)
    for name, parameter in student.named_parameters():
        if name.endswith(".rows"):
            parameter.data.fill_(0.002 / FACTOR_SPEED)
    before, after = subject.compressed().matrices, exported(subject, student).matrices
    name = "encoder.blocks.0.mlp.0"
    assert torch.equal(after[name].scales, before[name].scales)
    ratio = after[name].row_scales.float() / before[name].row_scales.float()  # type: ignore[union-attr]
    torch.testing.assert_close(ratio, torch.full_like(ratio, 1.002), rtol=6e-4, atol=0)


def test_a_second_training_goes_on_from_the_first(small_model: LoadedModel) -> None:
    subject = subject_of(small_model, {"bits": 4, "group_size": 32, "rounding": "calibrated"})
    recipe, weights = recovered_recipe(subject, "scales", trained(subject).weights())
    again = replace(subject, recipe=recipe, recovered=weights)
    untouched = WhisperStudent(again, "both", "scales", SETTINGS)
    for name, matrix in exported(again, untouched).matrices.items():
        assert torch.equal(matrix.scales, again.compressed().matrices[name].scales), name


def test_a_part_without_integers_has_no_scales_to_train(small_model: LoadedModel) -> None:
    layers = Recipe.original(small_model.dimensions).decoder
    subject = replace(subject_of(small_model, {"bits": 4, "group_size": 32}))
    recipe = replace(subject.recipe, decoder=layers, embedding_bits=16)
    with pytest.raises(InputError, match="no scales to train"):
        WhisperTraining(replace(subject, recipe=recipe), "scales", SETTINGS.model_copy(update={"part": "decoder"}))
