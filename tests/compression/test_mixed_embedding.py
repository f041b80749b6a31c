"""The rows of frequent and special tokens against matrices that are rounded whole on one grid."""

from dataclasses import replace

import pytest
import torch

from compression.calibration.calibration import Calibration
from compression.calibration.inputs import EMBEDDING
from compression.compress import compress
from compression.recipe.recipe import Recipe
from compression.techniques.grids import Grid, quantise
from compression.training.run import recovered_recipe
from compression.training.settings import TrainingSettings
from compression.training.subject import Subject
from compression.training.whisper_student import WhisperStudent
from compression.whisper.load import LoadedModel
from tests.compression.export.models import COMPACT, changed, compact_calibration, compact_model
from tests.compression.training.data import RandomBatches

FREQUENT = 300
TEXT = 50256
GROUPS = changed(Recipe.original(COMPACT), bits=4, group_size=32)


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return compact_model()


@pytest.fixture(scope="module")
def calibration(model: LoadedModel) -> Calibration:
    return compact_calibration(model)


def frequent(recipe: Recipe, **changes: object) -> Recipe:
    return replace(recipe, frequent_tokens=FREQUENT, **changes)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("vocabulary", [0, 1500])
def test_rows_are_those_of_the_two_grids(
    symmetric: bool, vocabulary: int, model: LoadedModel, calibration: Calibration
) -> None:
    recipe = frequent(GROUPS, symmetric=symmetric, vocabulary=vocabulary, vocabulary_language="en")
    compressed = compress(model, recipe, calibration)
    ids = compressed.vocabulary.ids
    weight = model.network.decoder.token_embedding.weight.detach()[ids]
    finer, coarser = (
        quantise(weight, Grid(bits=bits, group_size=32, symmetric=symmetric)).dequantised() for bits in (8, 4)
    )
    is_finer = (torch.arange(len(ids)) < FREQUENT) | (ids >= TEXT)
    assert is_finer.sum() == FREQUENT + (108 if vocabulary else 1608)
    expected = torch.where(is_finer[:, None], finer, coarser)
    assert torch.equal(compressed.network.decoder.token_embedding.weight, expected)
    mixed = compressed.mixed_embedding
    assert mixed is not None
    assert torch.equal(mixed.dequantised(), expected)
    assert EMBEDDING not in compressed.matrices


def test_calibrated_rows_are_those_of_whole_matrices(model: LoadedModel, calibration: Calibration) -> None:
    recipe = replace(GROUPS, rounding="calibrated")
    eight, four, mixed = (
        compress(model, other, calibration).network.decoder.token_embedding.weight
        for other in (replace(recipe, embedding_bits=8), recipe, frequent(recipe))
    )
    expected = torch.cat([eight[:FREQUENT], four[FREQUENT:TEXT], eight[TEXT:]])
    assert torch.equal(mixed, expected)
    assert not torch.equal(mixed, four)


def test_without_the_gene_there_is_one_matrix(model: LoadedModel) -> None:
    compressed = compress(model, GROUPS)
    assert compressed.mixed_embedding is None
    assert compressed.matrices[EMBEDDING].bits == 4


def test_training_begins_on_the_points_of_calibrated_rounding(model: LoadedModel, calibration: Calibration) -> None:
    recipe = replace(frequent(GROUPS), rounding="calibrated")
    subject = Subject(model=model, recipe=recipe, calibration=calibration, recovered=None)
    student = WhisperStudent(subject, "decoder", "qat", TrainingSettings(train_embedding=True))
    calibrated = subject.compressed().network.decoder.token_embedding.weight
    nearest = compress(model, frequent(GROUPS)).network.decoder.token_embedding.weight
    # but for the extremes of the groups, which stay
    same = student.network.decoder.token_embedding.weight == calibrated
    assert same.float().mean() > 0.95 > (nearest == calibrated).float().mean()


@pytest.mark.parametrize("trains", [True, False])
def test_training_reads_what_is_stored(trains: bool, model: LoadedModel, calibration: Calibration) -> None:
    subject = Subject(model=model, recipe=frequent(GROUPS), calibration=calibration, recovered=None)
    student = WhisperStudent(subject, "decoder", "qat", TrainingSettings(train_embedding=trains))
    optimiser = torch.optim.SGD([p for p in student.parameters() if p.requires_grad], lr=0.01)
    batch = RandomBatches(vocabulary=2 * FREQUENT).load(0, (0, 1))
    logits = student(batch).logits
    assert logits is not None
    logits.square().mean().backward()
    optimiser.step()
    recipe, weights = recovered_recipe(subject, "qat", student.weights())
    before, after = subject.compressed(), compress(model, recipe, calibration, weights)
    stored = after.network.decoder.token_embedding.weight
    assert torch.equal(student.network.decoder.token_embedding.weight, stored)
    assert torch.equal(before.network.decoder.token_embedding.weight, stored) == (not trains)
