"""What a student is compared with, and that it learns."""

from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from common.errors import InputError
from compression.calibration.calibration import measure
from compression.recipe.recipe import Recipe
from compression.techniques.trained_weights import weights_digest
from compression.training.batches import batch_of
from compression.training.checkpoint import Checkpoint
from compression.training.distillation import Distillation, Matching, Teacher
from compression.training.losses import SoftTargets, relative_error, soft_loss
from compression.training.run import Limits, WhisperTraining, recovered_recipe
from compression.training.settings import TrainingSettings
from compression.training.whisper_student import WhisperStudent, absorbed_layers, changed_part
from compression.whisper.load import LoadedModel
from compression.whisper.network import decoder_states, encode
from tests.compression.training.data import SAMPLES, RandomBatches, bits, subject

SETTINGS = TrainingSettings(steps=40, evaluate_every=10, learning_rate=3e-3, hidden=1.0)
LIMITS = Limits(seconds=None, clock=lambda: 0.0, should_stop=lambda: False)
BATCH = batch_of(RandomBatches().clips[2:5])
MATCHING = Matching(encoder=((0, 0),), decoder=((0, 0), (1, 1)))


def loss_of(model: LoadedModel, student: WhisperStudent, settings: TrainingSettings) -> Distillation:
    matching = MATCHING if student.part == "both" else replace(MATCHING, encoder=())
    teacher = Teacher(model.network, student.part, matching, settings)
    return Distillation(student, teacher, settings, matching=matching)


def test_batches_line_up_inputs_rows_and_targets() -> None:
    clips = RandomBatches().clips[:3]  # 4, 5, 6 tokens, prompts of 2
    batch = batch_of(clips)
    assert batch.tokens.shape == (3, 6)
    assert batch.inputs.shape == batch.rows.shape == (3, 5)
    expected = torch.cat([clip.tokens[2:] for clip in clips])
    assert torch.equal(batch.targets, expected)
    before = torch.cat([clip.tokens[1:-1] for clip in clips])
    assert torch.equal(batch.inputs[batch.rows], before)


def test_decoder_states_end_in_whispers_own_logits(small_model: LoadedModel) -> None:
    network = small_model.network
    with torch.no_grad():
        encoded = encode(network, BATCH.mel)
        *_, last = decoder_states(network, BATCH.inputs, encoded)
        logits = last @ network.decoder.token_embedding.weight.T
        assert torch.equal(logits, network.decoder(BATCH.inputs, encoded))


def test_the_original_has_nothing_to_learn_from_itself(small_model: LoadedModel) -> None:
    student = WhisperStudent(subject(small_model), "both", "distill", SETTINGS)
    with torch.no_grad():
        loss = loss_of(small_model, student, SETTINGS.model_copy(update={"hard": 0.0}))(BATCH)
    assert float(loss) == pytest.approx(0, abs=1e-5)


def test_a_smoothed_network_says_what_its_teacher_says(small_model: LoadedModel) -> None:
    """Until something is rounded: the encoder's output is compared before smoothing divides it."""
    calibration = measure(small_model, SAMPLES)
    smoothed = replace(subject(small_model, activation_bits=16, smoothing=0.5), calibration=calibration)
    student = WhisperStudent(smoothed, "both", "distill", SETTINGS)
    divisors = smoothed.unrounded().inputs.divisors("decoder.blocks.0.cross_attn.key")
    assert divisors is not None
    assert float((divisors - 1).abs().mean()) > 0.1
    with torch.no_grad():
        loss = loss_of(small_model, student, SETTINGS.model_copy(update={"hard": 0.0}))(BATCH)
    assert float(loss) == pytest.approx(0, abs=1e-3)


def test_recipes_that_smooth_low_rank_layers_are_refused(small_model: LoadedModel) -> None:
    layer = replace(Recipe.original(small_model.dimensions).decoder[0], ffn_rank=24)  # type: ignore[type-var]
    with pytest.raises(InputError, match="cannot be trained: it smooths low-rank layers"):
        subject(small_model, activation_bits=8, smoothing=0.5, decoder=(layer, layer))


@pytest.mark.parametrize("part", ["both", "decoder"])
def test_the_loss_is_the_sum_of_its_terms(small_model: LoadedModel, part: str) -> None:
    """Against both networks run whole, without what is kept, batched or left out on the way."""
    settings = SETTINGS.model_copy(update={"soft": 0.7, "hard": 0.3, "encoded": 0.2, "hidden": 0.4})
    student = WhisperStudent(bits(small_model, 4, group_size=32), part, "qat", settings)  # type: ignore[arg-type]
    ours, theirs = student.network, small_model.network
    with torch.no_grad():
        loss = loss_of(small_model, student, settings)(BATCH)
        encoded = [encode(network, BATCH.mel) for network in (ours, theirs)]
        states = [
            [state[BATCH.rows] for state in decoder_states(network, BATCH.inputs, output)]
            for network, output in zip((ours, theirs), encoded, strict=True)
        ]
        logits = [
            rows[-1] @ network.decoder.token_embedding.weight.T
            for network, rows in zip((ours, theirs), states, strict=True)
        ]
        soft = soft_loss(logits[0], SoftTargets.of(logits[1], temperature=2.0, k=64), temperature=2.0)
        expected = 0.7 * soft + 0.3 * functional.cross_entropy(logits[0], BATCH.targets)
        hidden = [relative_error(own, other) for own, other in zip(states[0][:2], states[1][:2], strict=True)]
        if part == "both":
            expected = expected + 0.2 * relative_error(*encoded)
            blocks = [network.encoder.blocks[0](_before_blocks(network)) for network in (ours, theirs)]
            hidden.append(relative_error(*blocks))
        expected = expected + 0.4 * torch.stack(hidden).mean()
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-5)


def _before_blocks(network: torch.nn.Module) -> torch.Tensor:
    encoder = network.encoder
    x = functional.gelu(encoder.conv2(functional.gelu(encoder.conv1(BATCH.mel)))).permute(0, 2, 1)
    return x + encoder.positional_embedding[: x.shape[1]]


@pytest.mark.parametrize(
    ("part", "method", "width"),
    [("decoder", "distill", 4), ("both", "qat", 3), ("encoder", "qat", 3)],
)
def test_a_quantised_network_comes_nearer_to_its_original(
    small_model: LoadedModel, part: str, method: str, width: int
) -> None:
    settings = SETTINGS.model_copy(update={"part": part, "hard": 0.0, "hidden": 0.0})
    training = WhisperTraining(bits(small_model, width, group_size=32), method, settings)  # type: ignore[arg-type]
    done = training.run(RandomBatches(), LIMITS, checkpoint=None, watch=lambda _: None)
    losses = [point.training_loss for point in done.points if point.training_loss is not None]
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize(
    ("part", "settings"), [("encoder", SETTINGS), ("both", SETTINGS.model_copy(update={"train_embedding": True}))]
)
def test_distillation_of_weights_that_are_only_rounded_is_refused(
    small_model: LoadedModel, part: str, settings: TrainingSettings
) -> None:
    with pytest.raises(InputError, match="only rounds weights, which distillation does not see: --method qat"):
        WhisperTraining(bits(small_model, 4), "distill", settings.model_copy(update={"part": part}))


@pytest.mark.parametrize("changes", [{}, {"window_s": 15.0}], ids=str)
def test_what_has_the_original_s_weights_has_nothing_to_recover(
    small_model: LoadedModel, changes: dict[str, float]
) -> None:
    with pytest.raises(InputError, match="has nothing to recover: its weights are the original's"):
        subject(small_model, **changes).check_losses()


def test_whatever_was_rounded_has_something_to_recover(small_model: LoadedModel) -> None:
    bits(small_model, 4).check_losses()
    subject(small_model, activation_bits=16).check_losses()


def test_a_pruned_encoder_comes_nearer_to_its_original(small_model: LoadedModel) -> None:
    layer = Recipe.original(small_model.dimensions).encoder[0]
    assert layer
    pruned = subject(small_model, encoder=(replace(layer, heads=1, ffn_channels=8),))
    pruned = replace(pruned, calibration=measure(small_model, SAMPLES))
    training = WhisperTraining(pruned, "distill", SETTINGS.model_copy(update={"learning_rate": 3e-4}))
    done = training.run(RandomBatches(), LIMITS, checkpoint=None, watch=lambda _: None)
    losses = [point.training_loss for point in done.points if point.training_loss is not None]
    assert losses[-1] < 0.7 * losses[0]


def test_a_network_that_lost_a_layer_learns_what_the_layer_did(small_model: LoadedModel) -> None:
    original = Recipe.original(small_model.dimensions)
    pruned = subject(small_model, decoder=(original.decoder[0], None))
    training = WhisperTraining(pruned, "distill", SETTINGS)
    done = training.run(RandomBatches(), LIMITS, checkpoint=None, watch=lambda _: None)
    losses = [point.training_loss for point in done.points if point.training_loss is not None]
    assert losses[-1] < 0.7 * losses[0]
    better, weights = recovered_recipe(pruned, "distill", training.weights())
    again = replace(pruned, recipe=better, recovered=weights)
    assert torch.equal(again.unrounded().network.decoder.ln.weight, training.student.network.decoder.ln.weight)


def test_what_was_not_trained_this_time_keeps_the_weights_of_the_time_before(small_model: LoadedModel) -> None:
    first = {"encoder.ln_post.bias": torch.ones(64), "decoder.ln.bias": torch.ones(64)}
    before, weights = recovered_recipe(subject(small_model), "distill", first)
    again = replace(subject(small_model), recipe=before, recovered=weights)
    _, both = recovered_recipe(again, "qat", {"decoder.ln.bias": torch.zeros(64)})
    assert torch.equal(both["encoder.ln_post.bias"], torch.ones(64))
    assert torch.equal(both["decoder.ln.bias"], torch.zeros(64))


@pytest.mark.parametrize(
    ("kept", "expected"),
    [("1111", (0, 1, 2, 3)), ("1011", (1, 2, 3)), ("0110", (1, 3)), ("1001", (2, 3)), ("0001", (3,))],
)
def test_a_kept_layer_does_the_work_of_the_dropped_ones_behind_it(kept: str, expected: tuple[int, ...]) -> None:
    assert absorbed_layers([object() if mark == "1" else None for mark in kept]) == expected


def test_auto_trains_what_the_recipe_changes(small_model: LoadedModel) -> None:
    original = Recipe.original(small_model.dimensions)
    layer = original.encoder[0]
    assert layer
    encoder = replace(original, encoder=(replace(layer, ffn_bits=4),))
    assert changed_part(encoder, original, "auto") == "encoder"
    assert changed_part(replace(original, decoder=(original.decoder[0], None)), original, "auto") == "decoder"
    assert changed_part(replace(encoder, embedding_bits=8), original, "auto") == "both"
    assert changed_part(replace(original, activation_bits=8), original, "auto") == "both"
    assert changed_part(original, original, "auto") == "decoder"
    assert changed_part(encoder, original, "decoder") == "decoder"


def test_what_cannot_be_trained_is_one_line(small_model: LoadedModel) -> None:
    with pytest.raises(InputError, match="no integer weights to train for; distill is for what was removed"):
        WhisperTraining(subject(small_model), "qat", SETTINGS)
    nothing = SETTINGS.model_copy(update={"part": "encoder", "encoded": 0.0, "hidden": 0.0})
    with pytest.raises(InputError, match="every loss of the encoder has the weight 0"):
        WhisperTraining(subject(small_model), "distill", nothing)


@pytest.mark.parametrize(("part", "method"), [("decoder", "distill"), ("both", "qat")])
def test_a_whisper_whose_training_was_interrupted_has_the_same_weights(
    small_model: LoadedModel, tmp_path: Path, part: str, method: str
) -> None:
    settings = SETTINGS.model_copy(update={"part": part, "steps": 12, "evaluate_every": 4})
    checkpoint = Checkpoint(file=tmp_path / "checkpoint", identity="this one")
    results = []
    for stops, file in ((None, None), (5, checkpoint), (None, checkpoint)):
        training = WhisperTraining(bits(small_model, 4, group_size=32), method, settings)  # type: ignore[arg-type]
        steps = count(1)
        limits = replace(LIMITS, should_stop=lambda steps=steps, stops=stops: next(steps) == stops)
        done = training.run(RandomBatches(), limits, checkpoint=file, watch=lambda _: None)
        results.append((done.steps, weights_digest(training.weights())))
    whole, half, resumed = results
    assert half[0] == 5
    assert half[1] != whole[1]
    assert resumed == whole


def test_kept_answers_of_the_teacher_are_those_of_a_new_one(small_model: LoadedModel) -> None:
    """In whatever batch a clip comes: what a resumed training works out anew must be what was kept before."""
    clips = RandomBatches().clips
    teacher, other = (Teacher(small_model.network, "both", MATCHING, SETTINGS) for _ in range(2))
    teacher.taught(batch_of([clips[0], clips[3]]))
    kept, new = teacher.taught(batch_of([clips[3], clips[1]])), other.taught(batch_of([clips[3], clips[1]]))
    assert kept.targets
    assert new.targets
    assert torch.equal(kept.targets.logits, new.targets.logits)
    assert torch.equal(kept.encoded, new.encoded)  # type: ignore[arg-type]
    for ours, theirs in zip(kept.decoder_states, new.decoder_states, strict=True):
        assert torch.equal(ours, theirs)
