"""What a shorter vocabulary costs in WER and saves in megabytes, by which tokens stay.

    python benchmarks/wer/vocabulary.py --data MANIFEST --calibration MANIFEST [--model base --language de] [--json]

Weights stay in floating point, so that only the vocabulary differs. Three rules choose as many text tokens: the
product's own (words of the language and calibration speech), the words alone, and the first ones of the byte pair
encoding, which are those that it merged first. Differences are paired with the original model on the same clips,
resampled by speaker.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from comparison import Comparison, parser_of
from torch import Tensor
from whisper.model import Whisper

from compression.calibration.calibration import Calibration
from compression.compress import compress
from compression.recipe.recipe import Recipe
from compression.techniques.compressed import Compressed
from compression.techniques.vocabulary import keep_embedding_rows, kept_tokens
from compression.whisper.load import LoadedModel
from compression.whisper.tokenizer import tokenizer_of
from evaluators.accuracy.evaluator import Evaluation
from evaluators.accuracy.word_errors import normaliser_for
from evaluators.costs.price import stored_bytes
from evaluators.speech.language import language_of
from evaluators.speech.speech_set import SpeechSet
from search.loading import load_speech

SIZES = (32768, 24576, 16384, 12288, 8192, 4096)
RULES = ("words and speech", "words", "first")


def shortened(model: LoadedModel, recipe: Recipe, calibration: Calibration, rule: str) -> Compressed:
    """The model with the recipe's number of tokens, chosen by the rule."""
    if rule == "words and speech":
        return compress(model, recipe, calibration)
    whole = compress(model, replace(recipe, vocabulary=0).canonical(model.dimensions))
    vocabulary = keep_embedding_rows(whole.network, _kept(whole.network, recipe, calibration, rule))
    return replace(whole, vocabulary=vocabulary)


def _kept(network: Whisper, recipe: Recipe, calibration: Calibration, rule: str) -> Tensor:
    silent = replace(calibration, token_counts=np.zeros_like(calibration.token_counts))
    kept = kept_tokens(network, recipe, silent)
    if rule == "words":
        return kept
    text = torch.arange(recipe.vocabulary)  # the 256 bytes are the first of both encodings
    return torch.cat([text, kept[kept >= tokenizer_of(network).eot]])


def lost_words(compressed: Compressed, speech: SpeechSet) -> float:
    """The share of the references' words that need a token that is gone, both in small letters and capitalised."""
    kept, encode = set(compressed.vocabulary.ids.tolist()), tokenizer_of(compressed.network).encode
    spoken = [
        word
        for utterance in speech.utterances
        for word in normaliser_for(language_of(utterance)).normalise(utterance.text).split()
    ]
    lost = [word for word in spoken if not any(kept.issuperset(encode(f" {w}")) for w in (word, word.capitalize()))]
    return len(lost) / len(spoken)


def row(rule: str, recipe: Recipe, comparison: Comparison, evaluation: Evaluation) -> dict[str, object]:
    dimensions, accuracy = comparison.model.dimensions, evaluation.accuracy
    eight = replace(recipe, embedding_bits=8)
    return {
        "model": comparison.model.name,
        "speech": comparison.evaluator.speech.name,
        "rule": rule,
        "text_tokens": recipe.vocabulary or dimensions.text_tokens,
        "size_mb": round(stored_bytes(dimensions, recipe) / 1e6, 2),
        "size_mb_embedding_8_bits": round(stored_bytes(dimensions, eight) / 1e6, 2),
        **comparison.figures(evaluation),
        "insertions": accuracy.rate.insertions,
        "loops": sum(utterance.hypothesis.ending != "complete" for utterance in evaluation.utterances),
        "words": accuracy.rate.words,
    }


def main() -> None:
    parser = parser_of(__doc__)
    parser.set_defaults(language="en")
    parser.add_argument("--texts", type=Path, nargs="*", default=(), help="more sets to count lost words in")
    parser.add_argument("--sizes", type=int, nargs="*", default=SIZES)
    parser.add_argument("--rules", nargs="*", default=RULES, choices=RULES)
    options = parser.parse_args()
    for measurement in measured(options):
        if options.json:
            print(json.dumps(measurement), flush=True)
        else:
            print("  ".join(f"{value!s:>8}" for value in measurement.values()), flush=True)


def measured(options: argparse.Namespace) -> Iterator[dict[str, object]]:
    comparison = Comparison.open(options)
    model, original = comparison.model, comparison.original
    texts = [load_speech(path, model, language=options.language, skip_broken=False) for path in options.texts]
    texts = [comparison.evaluator.speech, *texts]
    yield row("all", original, comparison, comparison.baseline)
    for size in options.sizes:
        recipe = replace(original, vocabulary=size, vocabulary_language=options.language)
        for rule in options.rules:
            network = shortened(model, recipe, comparison.calibration, rule)
            evaluation = comparison.evaluate(network, recipe, encoder_key=original.encoder_key)
            lost = {f"lost_words_{text.name}": round(lost_words(network, text), 4) for text in texts}
            yield row(rule, recipe, comparison, evaluation) | lost


if __name__ == "__main__":
    main()
