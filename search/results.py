"""`trials.csv` and `pareto.csv`: what scripts outside the project read."""

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from common.files import write_text_whole
from compression.dimensions import Dimensions
from compression.recipe import Recipe
from search.outcome import Outcome
from search.trial import Trial

COLUMNS = (
    *("trial", "recipe_id", "state", "feasible", "recommended", "objective"),
    *("wer", "wer_low", "wer_high", "wer_confirm", "insertions", "deletions", "substitutions", "words"),
    *("size_mb", "flops_g", "latency_ms", "latency_low_ms", "latency_high_ms", "rtf"),
    *("peak_memory_mb", "energy_mj", "parameters_m"),
    *("encoder_layers", "decoder_layers", "heads", "ffn_channels", "mean_weight_bits", "activation_bits"),
    *("vocabulary", "window_s", "source", "seconds", "note", "recipe"),
)
"""The columns of both files, in the order of the contract."""
_ACCURACY = ("wer", "wer_low", "wer_high", "insertions", "deletions", "substitutions", "words")
_COUNTS = ("insertions", "deletions", "substitutions", "words")
_COSTS = (
    *("size_mb", "flops_g", "latency_ms", "latency_low_ms", "latency_high_ms", "rtf"),
    *("peak_memory_mb", "energy_mj", "parameters_m", "source"),
)
_FLOAT_FORMAT = "%.10g"
"""One error among 10^9 words and one byte among 10^9 still show, so that the front in the file is a front."""


def trials_frame(outcome: Outcome, dimensions: Dimensions) -> pd.DataFrame:
    """Every trial in number order, with COLUMNS.

    `feasible` and `recommended` are booleans (True and False in the file); `heads` and `ffn_channels` are sums
    over the kept layers, self-attention and cross-attention; `mean_weight_bits` as in `mean_weight_bits`. An accuracy
    that was not measured is missing, with the reason in `note`. That of a `stopped` trial is over the utterances
    scored before the stop, and `note` says how many.
    """
    return _frame(sorted(outcome.trials, key=lambda trial: trial.number), outcome, dimensions)


def pareto_frame(outcome: Outcome, dimensions: Dimensions) -> pd.DataFrame:
    """The front, cheapest first, with COLUMNS."""
    return _frame(outcome.front, outcome, dimensions)


def write_results(folder: Path, outcome: Outcome, dimensions: Dimensions) -> None:
    """Write `trials.csv` and `pareto.csv` into `folder`, each whole. Raises OSError."""
    for name, frame in (
        ("trials.csv", trials_frame(outcome, dimensions)),
        ("pareto.csv", pareto_frame(outcome, dimensions)),
    ):
        text = frame.to_csv(index=False, float_format=_FLOAT_FORMAT, lineterminator="\n")
        write_text_whole(folder / name, text)


def mean_weight_bits(recipe: Recipe, dimensions: Dimensions) -> float:
    """Stored bits per weight: the mean over the weights of all kept matrices, scales and zero points left out.

    Matrices are the attention projections, the FFN, the convolutions and the token embedding.
    """
    audio, text = dimensions.n_audio_state, dimensions.n_text_state
    weights = [
        (recipe.convolution_bits, 3 * audio * (dimensions.n_mels + audio)),
        (recipe.embedding_bits, dimensions.n_vocab * text),
    ]
    for encoder in filter(None, recipe.encoder):
        weights.append((encoder.attention_bits, 4 * audio * encoder.heads * dimensions.audio_head_width))
        weights.append((encoder.ffn_bits, 2 * audio * encoder.ffn_channels))
    for decoder in filter(None, recipe.decoder):
        heads = decoder.heads + decoder.cross_heads
        weights.append((decoder.attention_bits, 4 * text * heads * dimensions.text_head_width))
        weights.append((decoder.ffn_bits, 2 * text * decoder.ffn_channels))
    return sum(bits * count for bits, count in weights) / sum(count for _, count in weights)


def _frame(trials: Iterable[Trial], outcome: Outcome, dimensions: Dimensions) -> pd.DataFrame:
    rows = [_row(trial, outcome, dimensions) for trial in trials]
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(dict.fromkeys(_COUNTS, "Int64"))


def _row(trial: Trial, outcome: Outcome, dimensions: Dimensions) -> dict[str, object]:
    confirmation = outcome.confirmations.get(trial.recipe.id)
    accuracy = {name: getattr(trial.accuracy, name) for name in _ACCURACY} if trial.accuracy else {}
    return {
        "trial": trial.number,
        "recipe_id": trial.recipe.id,
        "state": trial.state,
        "feasible": trial.feasible,
        "recommended": outcome.recommended is not None and trial.number == outcome.recommended.number,
        "objective": trial.objective,
        **accuracy,
        "wer_confirm": confirmation and confirmation.wer,
        **{name: getattr(trial.costs, name) for name in _COSTS},
        **_structure(trial.recipe, dimensions),
        "seconds": trial.seconds,
        "note": _note(trial, outcome),
        "recipe": trial.recipe.to_json(),
    }


def _structure(recipe: Recipe, dimensions: Dimensions) -> dict[str, float]:
    encoder = [layer for layer in recipe.encoder if layer]
    decoder = [layer for layer in recipe.decoder if layer]
    return {
        "encoder_layers": len(encoder),
        "decoder_layers": len(decoder),
        "heads": sum(e.heads for e in encoder) + sum(d.heads + d.cross_heads for d in decoder),
        "ffn_channels": sum(layer.ffn_channels for layer in (*encoder, *decoder)),
        "mean_weight_bits": mean_weight_bits(recipe, dimensions),
        "activation_bits": recipe.activation_bits,
        "vocabulary": dimensions.n_vocab,
        "window_s": recipe.window_s,
    }


def _note(trial: Trial, outcome: Outcome) -> str:
    """The trial's own note on one line, and the reason for every empty cell."""
    parts = [" ".join(trial.note.split())]
    if trial.state == "stopped" and trial.accuracy:
        parts.append(f"WER over the first {len(trial.accuracy.utterances)} of {outcome.utterances} utterances")
    if trial.state == "complete" and trial.recipe.id not in outcome.confirmations:
        parts.append("not confirmed" if outcome.confirm_speech else "no confirm set")
    return "; ".join(filter(None, parts))
