"""Calibration speech: a speech set as samples for `compression.calibration`, measured once and cached on disk."""

from collections.abc import Sequence
from pathlib import Path
from zipfile import BadZipFile

import torch
from whisper.tokenizer import get_tokenizer

from common.files import cache_folder, sha256_of_text
from compression.calibration import Calibration, CalibrationSample, measure
from compression.models import LoadedModel
from compression.network import encode
from evaluators.decoding import Clip, decode
from evaluators.features import CachedFeatures
from evaluators.language import language_of
from evaluators.speech_set import SpeechSet, Utterance
from runtime.window import encoder_frames

CALIBRATION_VERSION = 4
"""To be raised whenever the same speech would give other statistics."""
WINDOW_S = 15.0
"""Shortest window of calibration clips: half the time of 30 s, and no worse (see feasibility on windows)."""
_BATCH = 16


def calibrate(model: LoadedModel, speech: SpeechSet, *, limit: int, features: CachedFeatures) -> Calibration:
    """Statistics of the model on the first `limit` utterances; cached under the digests of both.

    The tokens are the model's own greedy transcripts, so that the set needs no transcripts in Whisper's spelling.
    """
    identity = f"{model.digest}/{speech.digest}/{limit}/{CALIBRATION_VERSION}"
    file = cache_folder("calibration") / f"{sha256_of_text(identity)}.npz"
    cached = _load(file)
    if cached is None:
        cached = measure(model, calibration_samples(model, speech.utterances[:limit], features))
        cached.save(file)
    return cached


def _load(file: Path) -> Calibration | None:
    """The cached calibration; None when there is none or it is damaged."""
    try:
        return Calibration.load(file)
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):
        return None


def calibration_samples(
    model: LoadedModel, utterances: Sequence[Utterance], features: CachedFeatures
) -> list[CalibrationSample]:
    """One sample per utterance: its mel features at a short window and the model's own transcript."""
    samples = []
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
        for utterance, mel, said in zip(batch, mels, decode(model.network, clips), strict=True):
            tokenizer = get_tokenizer(
                model.network.is_multilingual,
                num_languages=model.network.num_languages,
                language=language_of(utterance),
                task="transcribe",
            )
            prompt = tokenizer.sot_sequence_including_notimestamps
            tokens = torch.tensor([*prompt, *said.tokens, tokenizer.eot])
            samples.append(CalibrationSample(mel=mel, tokens=tokens, prompt_length=len(prompt)))
    return samples
