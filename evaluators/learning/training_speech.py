"""A speech set as training data: windows, transcripts, copies under other conditions, batches of similar length."""

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path

import torch
from torch import Tensor
from whisper.audio import log_mel_spectrogram, pad_or_trim

from common.errors import InputError
from common.files import cache_folder, write_text_whole
from compression.training.batches import Batch, Clip, batch_of
from compression.training.settings import TrainingSettings
from compression.whisper.load import LoadedModel
from compression.whisper.tokenizer import tokenizer_of
from evaluators.learning.calibration import identity_of, pseudo_labelled
from evaluators.speech.audio import read_audio
from evaluators.speech.augmentation import Conditions, generator_of
from evaluators.speech.cached_files import read_cached
from evaluators.speech.features import CachedFeatures
from evaluators.speech.language import check_languages, language_of
from evaluators.speech.noisy_speech import noise_files
from evaluators.speech.speech_set import SpeechSet, Utterance
from runtime.window import FRAMES_PER_S, WINDOW_LIMIT_S, encoder_window_s

WINDOW_STEP_S = 5.0
"""Training windows are multiples of this, so that enough clips share one and can be a batch."""


@dataclass(frozen=True, kw_only=True)
class _Example:
    utterance: Utterance
    tokens: Tensor
    prompt_length: int


class TrainingSpeech:
    """See `compression.training.batches.Batches`. A share of the utterances, drawn by the seed, is held out.

    In epoch e every clip comes in its copy e mod `copies`: so what a teacher says to each copy can be kept.
    """

    def __init__(
        self, model: LoadedModel, speech: SpeechSet, settings: TrainingSettings, features: CachedFeatures
    ) -> None:
        """The teacher's transcripts are made here, which may take minutes; the noise is read before.

        Raises InputError when there is too little speech, or noise that cannot be read.
        """
        check_languages(speech, model.dimensions)
        mixed_in = settings.noise if settings.copies > 1 else None
        noises = tuple(map(read_audio, noise_files(mixed_in, option="training: noise") if mixed_in else ()))
        self._settings, self._features = settings, features
        examples = _examples(model, speech, settings, features)
        shuffled = random.Random(settings.seed).sample(examples, len(examples))
        held_out = max(1, round(settings.held_out * len(shuffled)))
        if len(shuffled) <= held_out:
            raise InputError(f"speech set {speech.name}: {len(shuffled)} utterances are too few to train on")
        self._held_out, self._trained = shuffled[:held_out], shuffled[held_out:]
        self._conditions = Conditions(speeds=settings.speeds, snr_db=settings.snr_db, noises=noises)

    def plan(self, epoch: int) -> Sequence[tuple[int, ...]]:
        """Batches of clips of one window and similar transcripts, in an order of the epoch's own."""
        rng = random.Random(f"{self._settings.seed}/{epoch}")
        return _buckets([self._window_s(e, epoch) for e in self._trained], self._trained, self._settings, rng)

    def load(self, epoch: int, indices: tuple[int, ...]) -> Batch:
        copy = epoch % self._settings.copies
        return batch_of([self._clip(self._trained[index], epoch, copy) for index in indices])

    def held_out(self) -> Sequence[Batch]:
        windows = [self._window_s(example, 0) for example in self._held_out]
        plan = _buckets(windows, self._held_out, self._settings, random.Random(0))
        return [batch_of([self._clip(self._held_out[index], 0, 0) for index in batch]) for batch in plan]

    def _window_s(self, example: _Example, epoch: int) -> float:
        """Of a clip in an epoch: that of its slowest copy, so that it is known without drawing."""
        slowest = 1.0 if epoch % self._settings.copies == 0 else min(1.0, self._settings.speeds[0])
        return training_window_s(self._settings.window_s, example.utterance.duration_s / slowest)

    def _clip(self, example: _Example, epoch: int, copy: int) -> Clip:
        utterance, frames = example.utterance, round(self._window_s(example, epoch) * FRAMES_PER_S)
        mel = self._features.mel(utterance) if copy == 0 else self._augmented(utterance, copy)
        key = f"{utterance.id}/{copy}"
        return Clip(key=key, mel=mel[:, :frames], tokens=example.tokens, prompt_length=example.prompt_length)

    def _augmented(self, utterance: Utterance, copy: int) -> Tensor:
        rng = generator_of(self._settings.seed, copy, utterance.id)
        samples = self._conditions.applied(utterance.samples(), rng)
        return log_mel_spectrogram(pad_or_trim(torch.from_numpy(samples)), self._features.n_mels)


def training_window_s(shortest_s: float, audio_s: float) -> float:
    """The window of an evaluation (`runtime.window`), rounded up to a multiple of WINDOW_STEP_S."""
    return min(WINDOW_LIMIT_S, ceil(encoder_window_s(shortest_s, audio_s) / WINDOW_STEP_S) * WINDOW_STEP_S)


def _buckets(
    windows: Sequence[float], examples: Sequence[_Example], settings: TrainingSettings, rng: random.Random
) -> list[tuple[int, ...]]:
    """Indices of examples in batches of one window, those with similar numbers of tokens together; shuffled."""
    # a little randomness in the length lets neighbours change from epoch to epoch
    lengths = [len(example.tokens) * rng.uniform(0.9, 1.1) for example in examples]
    batches = []
    for window in sorted(set(windows)):
        members = sorted((i for i, own in enumerate(windows) if own == window), key=lengths.__getitem__)
        size = settings.batch_size
        batches += [tuple(members[first : first + size]) for first in range(0, len(members), size)]
    rng.shuffle(batches)
    return batches


def _examples(
    model: LoadedModel, speech: SpeechSet, settings: TrainingSettings, features: CachedFeatures
) -> list[_Example]:
    if settings.labels == "teacher":
        said = _spoken(model, speech, features)
    else:
        said = [_written(model, utterance) for utterance in speech.utterances]
    limit = model.dimensions.n_text_ctx
    return [
        _Example(utterance=utterance, tokens=tokens[:limit], prompt_length=prompt_length)
        for utterance, (tokens, prompt_length) in zip(speech.utterances, said, strict=True)
        if len(tokens) > prompt_length
    ]


def _spoken(model: LoadedModel, speech: SpeechSet, features: CachedFeatures) -> list[tuple[Tensor, int]]:
    """The model's own transcripts as tokens with prompt and end, and the prompt's length; kept in the cache folder.

    No tokens where the transcript has no end: a loop is nothing to learn.
    """
    file = cache_folder("transcripts") / f"{identity_of(model, speech)}.json"
    said = read_cached(file, _load_transcripts)
    if said is None or len(said) != len(speech.utterances):
        samples = pseudo_labelled(model, speech.utterances, features)
        said = [(s.tokens, s.prompt_length) if s else (torch.tensor([], dtype=torch.int64), 0) for s in samples]
        write_text_whole(file, json.dumps([(tokens.tolist(), length) for tokens, length in said]))
    return said


def _load_transcripts(file: Path) -> list[tuple[Tensor, int]]:
    saved = json.loads(file.read_text(encoding="utf-8"))
    return [(torch.tensor(tokens, dtype=torch.int64), int(length)) for tokens, length in saved]


def _written(model: LoadedModel, utterance: Utterance) -> tuple[Tensor, int]:
    """The speech set's own text as tokens with prompt and end, and the prompt's length."""
    tokenizer = tokenizer_of(model.network, language_of(utterance))
    prompt = tokenizer.sot_sequence_including_notimestamps
    text = tokenizer.encode(f" {utterance.text.strip()}")
    return torch.tensor([*prompt, *text, tokenizer.eot]), len(prompt)
