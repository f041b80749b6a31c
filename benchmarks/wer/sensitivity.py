"""Whether the sensitivity profile, a closed form, ranks groups of matrices as measuring them does.

    python benchmarks/wer/sensitivity.py --calibration MANIFEST [--model base] [--clips 16] [--threads 1] [--json]

Each group alone is rounded to each number of bits and the network is run, teacher-forced on the original's transcripts
of the first clips: the mean Kullback-Leibler divergence of its next token from the original's, in nats a token, is what
the profile predicts.
"""

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from time import process_time

import torch
from scipy.stats import spearmanr
from torch import Tensor
from torch.nn import functional
from whisper.model import Whisper

from compression.calibration.calibration import CalibrationSample
from compression.compress import compress
from compression.recipe.allocation import EMBEDDING_GROUP, Sensitivity
from compression.recipe.recipe import Recipe
from compression.sensitivity import sensitivity
from compression.whisper.load import LoadedModel, load_model
from compression.whisper.network import encode
from evaluators.learning.calibration import calibrate, calibration_samples
from evaluators.speech.features import CachedFeatures
from search.loading import load_speech, use_threads


class Clips:
    """Calibration clips, and what the original makes of them."""

    def __init__(self, model: LoadedModel, samples: Sequence[CalibrationSample]) -> None:
        self._samples = samples
        self._encoded = [self._encode(model.network, sample) for sample in samples]
        self._theirs = [
            self._log_probabilities(model.network, sample, encoded)
            for sample, encoded in zip(samples, self._encoded, strict=True)
        ]

    def divergence(self, network: Whisper, *, same_encoder: bool) -> float:
        """Of the network's next tokens from the original's, in nats a token."""
        lost, tokens = 0.0, 0
        for sample, encoded, theirs in zip(self._samples, self._encoded, self._theirs, strict=True):
            heard = encoded if same_encoder else self._encode(network, sample)
            ours = self._log_probabilities(network, sample, heard)
            lost += float(functional.kl_div(ours, theirs, reduction="sum", log_target=True))
            tokens += len(ours)
        return lost / tokens

    @staticmethod
    @torch.inference_mode()
    def _encode(network: Whisper, sample: CalibrationSample) -> Tensor:
        return encode(network, sample.mel[None])

    @staticmethod
    @torch.inference_mode()
    def _log_probabilities(network: Whisper, sample: CalibrationSample, encoded: Tensor) -> Tensor:
        logits = network.decoder(sample.tokens[None, :-1], encoded)[0]
        return logits[sample.prompt_length - 1 :].log_softmax(-1)


def with_bits(recipe: Recipe, group: str, bits: int) -> Recipe:
    """The recipe with nothing but this group at these bits."""
    if group == EMBEDDING_GROUP:
        return replace(recipe, embedding_bits=bits)
    stack, number, part = group.split(".")
    layers = tuple(
        layer and (replace(layer, **{f"{part}_bits": bits}) if index == int(number) else layer)
        for index, layer in enumerate(getattr(recipe, stack))
    )
    return replace(recipe, **{stack: layers})


def rows(model: LoadedModel, options: argparse.Namespace) -> Iterator[Mapping[str, object]]:
    features = CachedFeatures(n_mels=model.dimensions.n_mels)
    speech = load_speech(options.calibration, model, language=options.language, skip_broken=True)
    calibration = calibrate(model, speech, limit=options.calibration_utterances, features=features)
    original = Recipe.original(model.dimensions, stored_bits=model.stored_bits)
    grid = replace(original, group_size=options.group_size, symmetric=False, rounding=options.rounding)
    started = process_time()
    profile: Sensitivity = sensitivity(model, calibration, grid, bits=options.bits)
    seconds = process_time() - started
    clips = Clips(model, calibration_samples(model, speech.utterances[: options.clips], features))
    for bits in options.bits:
        predicted, measured = [], []
        for group in profile:
            network = compress(model, with_bits(grid, group, bits), calibration).network
            predicted.append(profile[group][bits])
            measured.append(clips.divergence(network, same_encoder=not group.startswith("encoder")))
            yield {"group": group, "bits": bits, "predicted": predicted[-1], "measured": measured[-1]}
        rank = float(spearmanr(predicted, measured).statistic)
        yield {"bits": bits, "spearman": round(rank, 3), "profile_cpu_s": round(seconds, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny.en")
    parser.add_argument("--calibration", type=Path, required=True)
    parser.add_argument("--calibration-utterances", type=int, default=32)
    parser.add_argument("--language", default="en")
    parser.add_argument("--clips", type=int, default=16)
    parser.add_argument("--bits", type=int, nargs="*", default=(8, 4))
    parser.add_argument("--group-size", type=int, default=32)
    parser.add_argument("--rounding", default="calibrated", choices=("nearest", "calibrated"))
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    use_threads(options.threads)
    for row in rows(load_model(options.model), options):
        print(json.dumps(row) if options.json else "  ".join(str(value) for value in row.values()), flush=True)


if __name__ == "__main__":
    main()
