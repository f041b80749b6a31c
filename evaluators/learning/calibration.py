"""Calibration speech: a speech set as samples for `compression.calibration`, measured once and cached on disk."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch

from common.files import cache_folder, sha256_of_text, write_text_whole
from compression.calibration.calibration import Calibration, CalibrationSample, measure
from compression.recipe.allocation import Sensitivity
from compression.recipe.recipe import Recipe
from compression.sensitivity import sensitivity
from compression.techniques.compressed import Compressed
from compression.whisper.load import LoadedModel
from compression.whisper.network import encode
from compression.whisper.tokenizer import tokenizer_of
from evaluators.accuracy.decoding import Clip, decode
from evaluators.speech.cached_files import read_cached
from evaluators.speech.features import CachedFeatures
from evaluators.speech.language import language_of
from evaluators.speech.speech_set import SpeechSet, Utterance
from runtime.window import encoder_frames

CALIBRATION_VERSION = 8
"""To be raised whenever the same speech would give other statistics, or these another sensitivity profile."""
WINDOW_S = 15.0
"""Shortest window of calibration clips: half the time of 30 s, and no worse (see feasibility on windows)."""
_BATCH = 16


def calibrate(model: LoadedModel, speech: SpeechSet, *, limit: int, features: CachedFeatures) -> Calibration:
    """Statistics of the model on the first `limit` utterances; cached under the digests of both and the languages.

    The tokens are the model's own greedy transcripts, so that the set needs no transcripts in Whisper's spelling.
    """
    file = cache_folder("calibration") / f"{identity_of(model, speech, limit)}.npz"
    cached = read_cached(file, Calibration.load)
    if cached is None:
        measure(model, calibration_samples(model, speech.utterances[:limit], features)).save(file)
        cached = Calibration.load(file)  # what was measured is in memory, what was saved is on disk
    return cached


def sensitivity_profile(  # noqa: PLR0913 - what it depends on
    model: LoadedModel,
    speech: SpeechSet,
    *,
    limit: int,
    features: CachedFeatures,
    grid: Recipe,
    bits: tuple[int, ...],
) -> Sensitivity:
    """The profile (see `compression.sensitivity`) by the statistics that `calibrate` gives; cached like them."""
    file = cache_folder("sensitivity") / f"{identity_of(model, speech, limit, grid.id, bits)}.json"
    profile = read_cached(file, _load_profile)
    if not profile:
        calibration = calibrate(model, speech, limit=limit, features=features)
        profile = sensitivity(model, calibration, grid, bits=bits)
        write_text_whole(file, json.dumps(profile))
    return profile


def _load_profile(file: Path) -> Sensitivity:
    saved = json.loads(file.read_text(encoding="utf-8"))
    return {group: {int(bits): float(loss) for bits, loss in losses.items()} for group, losses in saved.items()}


def identity_of(model: LoadedModel, speech: SpeechSet, *details: object) -> str:
    """A digest of what the model says of the speech depends on, the languages included, and of the details."""
    return sha256_of_text(f"{model.digest}/{speech.digest}/{speech.languages}/{CALIBRATION_VERSION}/{details}")


def calibration_samples(
    model: LoadedModel, utterances: Sequence[Utterance], features: CachedFeatures
) -> list[CalibrationSample]:
    """One sample per utterance: its mel features at a short window and the model's own transcript.

    Utterances whose transcript runs on or is cut off are left out: nothing should be fitted to a loop.
    """
    return [sample for sample in pseudo_labelled(model, utterances, features) if sample]


def pseudo_labelled(
    model: LoadedModel, utterances: Sequence[Utterance], features: CachedFeatures
) -> list[CalibrationSample | None]:
    """The sample of each utterance; None where its transcript has no end, unless none of them has."""
    samples, are_whole = [], []
    for first in range(0, len(utterances), _BATCH):
        batch = utterances[first : first + _BATCH]
        mels = [features.mel(u)[:, : encoder_frames(WINDOW_S, u.duration_s)] for u in batch]
        with torch.inference_mode():
            encoded = [encode(model.network, mel.unsqueeze(0))[0] for mel in mels]
        limit = model.dimensions.n_text_ctx // 2
        clips = [
            Clip(features=output, language=language_of(utterance), max_tokens=limit)
            for utterance, output in zip(batch, encoded, strict=True)
        ]
        for utterance, mel, said in zip(batch, mels, decode(Compressed.original(model.network), clips), strict=True):
            tokenizer = tokenizer_of(model.network, language_of(utterance))
            prompt = tokenizer.sot_sequence_including_notimestamps
            tokens = torch.tensor([*prompt, *said.tokens, tokenizer.eot])
            samples.append(CalibrationSample(mel=mel, tokens=tokens, prompt_length=len(prompt)))
            are_whole.append(said.ending == "complete")
    is_any = any(are_whole)
    return [sample if is_whole or not is_any else None for sample, is_whole in zip(samples, are_whole, strict=True)]
