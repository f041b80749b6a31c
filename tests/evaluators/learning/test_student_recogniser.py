"""A student of another architecture: the same trainer, losses, data and evaluator as for a compressed Whisper."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from compression.training.batches import Batch
from compression.training.distillation import Distillation, Matching, Teacher, Widths
from compression.training.settings import TrainingSettings
from compression.training.students.lstm import LstmStudent
from compression.training.trainer import Trainer
from compression.whisper.load import LoadedModel
from evaluators.accuracy.evaluator import Evaluator
from evaluators.learning.student_recogniser import StudentRecogniser
from evaluators.learning.training_speech import TrainingSpeech
from evaluators.speech.features import CachedFeatures
from evaluators.speech.speech_set import SpeechSet, load_speech_set
from tests.evaluators.conftest import talkative
from tests.networks import random_network
from tests.strategies import small_dimensions

WIDTH = 48
DIMENSIONS = small_dimensions(layers=1, state=64, heads=1, vocabulary=51864)
WINDOW_S = 4.0


@pytest.fixture(scope="module")
def teacher() -> LoadedModel:
    network = talkative(random_network(DIMENSIONS), seed=0)
    return LoadedModel(name="small", digest="0", dimensions=DIMENSIONS, stored_bits=32, network=network)


@pytest.fixture(scope="module")
def handful() -> SpeechSet:
    """The four shortest clips, and one more to hold out."""
    whole = load_speech_set(Path("sample-search"))
    return replace(whole, utterances=tuple(sorted(whole.utterances, key=lambda u: u.duration_s)[:5]))


class Handful:
    """The clips that are trained on are those that it is measured by."""

    def __init__(self, batches: TrainingSpeech) -> None:
        self.plan, self.load = batches.plan, batches.load

    def held_out(self) -> list[Batch]:
        return [self.load(0, indices) for indices in self.plan(0)]


def trained_on(batches: Handful, teacher: LoadedModel, settings: TrainingSettings) -> LstmStudent:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        student = LstmStudent(n_mels=80, n_vocab=DIMENSIONS.n_vocab, width=WIDTH, layers=1)
        loss = Distillation(
            student,
            Teacher(teacher.network, "both", Matching(), settings),
            settings,
            matching=Matching(),
            encoder=Widths(student=WIDTH, teacher=DIMENSIONS.n_audio_state),
            decoder=Widths(student=WIDTH, teacher=DIMENSIONS.n_text_state),
        )
    Trainer(loss, loss, batches, settings, seconds=None, clock=lambda: 0.0).train()
    return student


def test_an_lstm_overfits_a_handful_of_clips_and_the_evaluator_hears_it(teacher, handful, tmp_path):
    settings = TrainingSettings(
        labels="reference",
        soft=0.0,
        encoded=0.1,
        copies=1,
        held_out=0.2,
        steps=250,
        learning_rate=0.01,
        window_s=WINDOW_S,
    )
    features = CachedFeatures(n_mels=80, folder=tmp_path)
    batches = Handful(TrainingSpeech(teacher, handful, settings, features))
    learned = {clip.key.partition("/")[0] for batch in batches.held_out() for clip in batch.clips}
    speech = replace(handful, utterances=tuple(u for u in handful.utterances if u.id in learned))
    assert len(speech.utterances) == 4
    evaluator = Evaluator(speech, dimensions=DIMENSIONS, features=features)
    untrained = LstmStudent(n_mels=80, n_vocab=DIMENSIONS.n_vocab, width=WIDTH, layers=1)
    before, after = (
        evaluator.evaluate_transcripts(
            StudentRecogniser(one, features, window_s=WINDOW_S, multilingual=False, languages=99)
        )
        for one in (untrained, trained_on(batches, teacher, settings))
    )
    assert after.accuracy.wer == 0
    assert before.accuracy.wer > 0.5


def test_its_encoder_has_whispers_positions_and_padding_tokens_change_nothing():
    student = LstmStudent(n_mels=80, n_vocab=100, width=16, layers=2).eval()
    mel = torch.randn(2, 80, 60)
    encoded = student.encode(mel)
    assert encoded.shape == (2, 30, 16)
    tokens = torch.randint(0, 100, (2, 7))
    states = student.spell(tokens, encoded)
    assert student.logits(states).shape == (2, 7, 100)
    torch.testing.assert_close(student.spell(tokens[:, :4], encoded), states[:, :4])
