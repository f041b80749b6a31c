"""What a shorter vocabulary costs in WER and saves in megabytes, by which tokens stay.

    python benchmarks/vocabulary.py --data MANIFEST --calibration MANIFEST [--model base --language de] [--json]

Weights stay in floating point, so that only the vocabulary differs. Three rules choose as many text tokens: the
product's own (words of the language and calibration speech), the words alone, and the first ones of the byte pair
encoding, which are those that it merged first. Differences are paired with the original model on the same clips,
resampled by speaker.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from whisper.model import Whisper

from compression.calibration import Calibration
from compression.compress import compress
from compression.export.vocabulary import tokenizer_of
from compression.models import LoadedModel, load_model
from compression.recipe import Recipe
from compression.vocabulary import keep, kept_tokens, token_ids
from evaluators.accuracy import normaliser_for, paired_difference
from evaluators.calibration_speech import calibrate
from evaluators.costs import stored_bytes
from evaluators.evaluator import Evaluation, Evaluator
from evaluators.features import CachedFeatures
from evaluators.language import language_of
from evaluators.speech_set import SpeechSet
from search.session import load_speech, use_threads

SIZES = (32768, 24576, 16384, 12288, 8192, 4096)
RULES = ("words and speech", "words", "first")


def shortened(model: LoadedModel, recipe: Recipe, calibration: Calibration, rule: str) -> Whisper:
    """The model with the recipe's number of tokens, chosen by the rule."""
    if rule == "words and speech":
        return compress(model, recipe, calibration)
    network = compress(model, replace(recipe, vocabulary=0).canonical(model.dimensions))
    keep(network, _kept(network, recipe, calibration, rule))
    return network


def _kept(network: Whisper, recipe: Recipe, calibration: Calibration, rule: str) -> Tensor:
    silent = replace(calibration, token_counts=np.zeros_like(calibration.token_counts))
    kept = kept_tokens(network, recipe, silent)
    if rule == "words":
        return kept
    text = torch.arange(recipe.vocabulary)  # the 256 bytes are the first of both encodings
    return torch.cat([text, kept[kept >= tokenizer_of(network).eot]])


def lost_words(network: Whisper, speech: SpeechSet) -> float:
    """The share of the references' words that need a token that is gone, both in small letters and capitalised."""
    kept, encode = set(token_ids(network).tolist()), tokenizer_of(network).encode
    spoken = [
        word for one in speech.utterances for word in normaliser_for(language_of(one)).normalise(one.text).split()
    ]
    lost = [word for word in spoken if not any(kept.issuperset(encode(f" {w}")) for w in (word, word.capitalize()))]
    return len(lost) / len(spoken)


def row(
    rule: str, recipe: Recipe, model: LoadedModel, evaluation: Evaluation, baseline: Evaluation
) -> dict[str, object]:
    difference = paired_difference(baseline.counts, evaluation.counts, seed=0)
    accuracy = evaluation.accuracy
    eight = replace(recipe, embedding_bits=8)
    return {
        "rule": rule,
        "text_tokens": recipe.vocabulary or model.dimensions.text_tokens,
        "size_mb": round(stored_bytes(model.dimensions, recipe) / 1e6, 2),
        "size_mb_embedding_8_bits": round(stored_bytes(model.dimensions, eight) / 1e6, 2),
        "wer": round(accuracy.wer, 4),
        "wer_low": round(accuracy.wer_low, 4),
        "wer_high": round(accuracy.wer_high, 4),
        "difference": round(difference.difference, 4),
        "difference_low": round(difference.low, 4),
        "difference_high": round(difference.high, 4),
        "insertions": accuracy.insertions,
        "loops": sum(one.hypothesis.ending != "complete" for one in evaluation.utterances),
        "words": accuracy.words,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny.en")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--calibration", type=Path, required=True)
    parser.add_argument("--calibration-utterances", type=int, default=64)
    parser.add_argument("--language", default="en")
    parser.add_argument("--texts", type=Path, nargs="*", default=(), help="more sets to count lost words in")
    parser.add_argument("--window", type=float, default=30.0, help="shortest encoder window in seconds")
    parser.add_argument("--sizes", type=int, nargs="*", default=SIZES)
    parser.add_argument("--rules", nargs="*", default=RULES, choices=RULES)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    use_threads(options.threads)
    for one in measured(load_model(options.model), options):
        if options.json:
            print(json.dumps(one), flush=True)
        else:
            print("  ".join(f"{value!s:>8}" for value in one.values()), flush=True)


def measured(model: LoadedModel, options: argparse.Namespace) -> Iterator[dict[str, object]]:
    features = CachedFeatures(n_mels=model.dimensions.n_mels)
    speech, spoken, *texts = (
        load_speech(path, model, language=options.language, skip_broken=True)
        for path in (options.data, options.calibration, *options.texts)
    )
    calibration = calibrate(model, spoken, limit=options.calibration_utterances, features=features)
    evaluator = Evaluator(speech, dimensions=model.dimensions, features=features)
    original = replace(Recipe.original(model.dimensions, stored_bits=model.stored_bits), window_s=options.window)
    print(f"{model.name}, {speech.name}, {evaluator.normaliser}, window {options.window:g} s", file=sys.stderr)

    def evaluated(network: Whisper, drafts: Evaluation | None) -> Evaluation:
        key = original.encoder_key
        return evaluator.evaluate(network, window_s=options.window, encoder_key=key, drafts=drafts)

    baseline = evaluated(model.network, None)
    identity = {"model": model.name, "speech": speech.name}
    yield identity | row("all", original, model, baseline, baseline)
    for size in options.sizes:
        recipe = replace(original, vocabulary=size, vocabulary_language=options.language)
        for rule in options.rules:
            network = shortened(model, recipe, calibration, rule)
            lost = {f"lost_words_{one.name}": round(lost_words(network, one), 4) for one in (speech, *texts)}
            yield identity | row(rule, recipe, model, evaluated(network, baseline), baseline) | lost


if __name__ == "__main__":
    main()
