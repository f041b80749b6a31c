"""`trials.csv`, `pareto.csv` and `artifacts.csv`: what scripts outside the project read."""

from collections.abc import Iterator
from dataclasses import asdict, fields
from functools import lru_cache

import pandas as pd

from compression.recipe.dimensions import Dimensions
from compression.recipe.recipe import EncoderLayer, Recipe
from evaluators.accuracy.error_rate import RATE_COLUMNS
from search.outcome import ArtifactFigures, Outcome
from search.report.flops_note import flops_note
from search.report.group_and_silence_notes import languages_note, new_notes, over_note
from search.trial import Trial

COLUMNS = (
    *("trial", "recipe_id", "state", "feasible", "recommended", "objective"),
    *("wer", "wer_low", "wer_high", "wer_confirm", "insertions", "deletions", "substitutions", "words"),
    *("size_mb", "flops_g", "latency_ms", "latency_low_ms", "latency_high_ms", "rtf"),
    *("peak_memory_mb", "energy_mj", "parameters_m"),
    *("encoder_layers", "decoder_layers", "heads", "ffn_channels", "mean_weight_bits", "activation_bits"),
    *("vocabulary", "window_s", "source", "seconds", "note", "recipe"),
    *("divergence", "divergence_tokens", "p_within_budget"),
    "flops_fvcore_g",
    *("language_accuracy", "language_accuracy_confirm"),
)
"""The columns of trials.csv and pareto.csv, in the order of the contract."""
_YOUNGER_FIGURES = ("on_sounds", "flops_fvcore_g", "language_accuracy", "host_utterance_ms")
"""Of the artifacts; the columns that were there before keep their places."""
ARTIFACT_COLUMNS = (
    *("trial", "recipe_id", *RATE_COLUMNS),
    *(field.name for field in fields(ArtifactFigures) if field.name not in {"rate", *_YOUNGER_FIGURES}),
    *("note", *_YOUNGER_FIGURES),
)
HOST = "host"
"""The profile of the machine that the search runs on."""
CONVOLUTION_WIDTH = 3
"""Of both convolutions."""
CACHED_RECIPES = 2**14
"""A run rewrites its files after every trial; what only depends on a recipe is worked out once."""
_TYPES = {
    **dict.fromkeys(("wer", "wer_low", "wer_high", "wer_confirm", "energy_mj"), "float64"),
    **dict.fromkeys(("latency_ms", "latency_low_ms", "latency_high_ms", "rtf"), "float64"),
    **dict.fromkeys(("divergence", "p_within_budget", "flops_fvcore_g"), "float64"),
    **dict.fromkeys(("language_accuracy", "language_accuracy_confirm"), "float64"),
    **dict.fromkeys(("insertions", "deletions", "substitutions", "words", "divergence_tokens"), "Int64"),
}
"""Of the columns that may be empty: all empty must read as numbers too."""
_COSTS = (
    *("size_mb", "flops_g", "latency_ms", "latency_low_ms", "latency_high_ms", "rtf"),
    *("peak_memory_mb", "energy_mj", "parameters_m", "source"),
)
FLOAT_FORMAT = "%.10g"
"""One error among 10^9 words and one byte among 10^9 still show, so that the front in the file is a front."""


def trials_frame(outcome: Outcome, dimensions: Dimensions) -> pd.DataFrame:
    """Every trial in number order, with COLUMNS.

    `feasible` and `recommended` are booleans (True and False in the file); `heads` and `ffn_channels` are sums
    over the kept layers, self-attention and cross-attention; `mean_weight_bits` as in `mean_weight_bits`. An accuracy
    that was not measured is missing, with the reason in `note`. That of a `stopped` trial is over the utterances
    scored before the stop, and `note` says how many.
    """
    trials = sorted(outcome.trials, key=lambda trial: trial.number)
    return _frame([trial_row(trial, outcome, dimensions) for trial in trials])


def pareto_frame(outcome: Outcome, dimensions: Dimensions) -> pd.DataFrame:
    """The front, cheapest first, with COLUMNS.

    Size and WER of an exported recipe are those of its artifact, and so is the latency if the device is this machine.
    """
    return _frame(pareto_rows(outcome, dimensions))


def artifacts_frame(outcome: Outcome) -> pd.DataFrame:
    """What was measured of every exported recipe, the original first, with ARTIFACT_COLUMNS."""
    return pd.DataFrame(artifact_rows(outcome), columns=list(ARTIFACT_COLUMNS))


def artifact_rows(outcome: Outcome) -> list[dict[str, object]]:
    """The rows of `artifacts_frame`."""
    exported = [trial for trial in outcome.trials if outcome.artifacts and trial.recipe.id in outcome.artifacts]
    return [{"trial": trial.number, "recipe_id": trial.recipe.id} | _artifact_row(trial, outcome) for trial in exported]


def pareto_rows(outcome: Outcome, dimensions: Dimensions) -> list[dict[str, object]]:
    """The rows of `pareto_frame`."""
    return [trial_row(trial, outcome, dimensions) | _artifact(trial, outcome) for trial in outcome.front]


def _artifact_row(trial: Trial, outcome: Outcome) -> dict[str, object]:
    figures = outcome.figures(trial)
    notes = [outcome.artifacts[trial.recipe.id].note, *new_notes(outcome, trial)]
    measured = asdict(figures) | figures.rate.columns if figures else {}
    heard = figures.on_sounds if figures and figures.on_sounds else {}
    sounds = "; ".join(f"{sound}: {text!r}" for sound, text in heard.items() if text)
    return {"note": "; ".join(filter(None, notes))} | measured | {"on_sounds": sounds}


@lru_cache(maxsize=CACHED_RECIPES)
def mean_weight_bits(recipe: Recipe, dimensions: Dimensions) -> float:
    """Stored bits per weight: the mean over all weights of the stored matrices.

    Matrices are the attention projections, the FFN, the convolutions and the token embedding; scales, zero points
    and what always stays in floating point (biases, normalisations, positions) are left out.
    """
    weights = list(_matrix_weights(recipe, dimensions))
    return sum(bits * count for bits, count in weights) / sum(count for _, count in weights)


def _matrix_weights(recipe: Recipe, dimensions: Dimensions) -> Iterator[tuple[int, int]]:
    """Stored bits and number of weights, for groups of matrices; four projections in an attention, two in an FFN."""
    audio, text = dimensions.n_audio_state, dimensions.n_text_state
    for layer in filter(None, recipe.encoder):
        yield layer.attention_bits, 4 * audio * layer.heads * dimensions.audio_head_width
        yield layer.ffn_bits, _ffn_weights(layer, audio)
    for layer in filter(None, recipe.decoder):
        yield layer.attention_bits, 4 * text * (layer.heads + layer.cross_heads) * dimensions.text_head_width
        yield layer.ffn_bits, _ffn_weights(layer, text)
    yield recipe.convolution_bits, CONVOLUTION_WIDTH * (dimensions.n_mels + audio) * audio
    yield from ((bits, rows * text) for bits, rows in recipe.embedding_rows(dimensions).by_bits)


def _ffn_weights(layer: EncoderLayer, width: int) -> int:
    channels, rank = layer.ffn_channels, layer.factor_rank(width)
    return 2 * (rank * (width + channels) if rank else width * channels)


def _frame(rows: list[dict[str, object]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(_TYPES)


def trial_row(trial: Trial, outcome: Outcome, dimensions: Dimensions) -> dict[str, object]:
    """A trial's cells, by column; None or missing where there is nothing."""
    recipe_id, recipe_json = _identity(trial.recipe)
    confirmation, figures = outcome.confirmations.get(recipe_id), outcome.figures(trial)
    accuracy = trial.accuracy.rate.columns if trial.accuracy else {}
    return {
        "trial": trial.number,
        "recipe_id": recipe_id,
        "state": trial.state,
        "feasible": trial.feasible,
        "recommended": outcome.recommended is not None and trial.number == outcome.recommended.number,
        "objective": trial.objective,
        **accuracy,
        "wer_confirm": confirmation and confirmation.rate.wer,
        **{name: getattr(trial.costs, name) for name in _COSTS},
        **_structure(trial.recipe, dimensions),
        "seconds": trial.seconds,
        "note": _note(trial, outcome, is_confirmed=confirmation is not None),
        "recipe": recipe_json,
        **_divergence(trial, outcome),
        "flops_fvcore_g": figures and figures.flops_fvcore_g,
        "language_accuracy": trial.accuracy and trial.accuracy.language_accuracy,
        "language_accuracy_confirm": confirmation and confirmation.language_accuracy,
    }


def _divergence(trial: Trial, outcome: Outcome) -> dict[str, object]:
    estimate = outcome.estimate(trial)
    probability: dict[str, object] = {"p_within_budget": estimate.probability} if estimate else {}
    if trial.divergence is None:
        return probability
    return {"divergence": trial.divergence.mean, "divergence_tokens": sum(trial.divergence.tokens), **probability}


def _artifact(trial: Trial, outcome: Outcome) -> dict[str, object]:
    """What the trial's artifact says otherwise than the trial."""
    figures = outcome.figures(trial)
    if figures is None:
        return {}
    measured: dict[str, object] = {**figures.rate.columns, "size_mb": figures.size_mb}
    costs = trial.costs
    here_ms = figures.host_latency_ms
    if outcome.device == HOST and outcome.artifacts_are_of_host and here_ms and costs.rtf and costs.latency_ms:
        latency = dict.fromkeys(("latency_ms", "latency_low_ms", "latency_high_ms"), here_ms)
        rtf = costs.rtf * here_ms / costs.latency_ms
        measured |= {**latency, "rtf": rtf, "source": "measured"}
    return measured


@lru_cache(maxsize=CACHED_RECIPES)
def _identity(recipe: Recipe) -> tuple[str, str]:
    """Id and canonical JSON."""
    return recipe.id, recipe.to_json()


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
        "vocabulary": dimensions.embedding_rows(recipe.vocabulary),
        "window_s": recipe.window_s,
    }


def _note(trial: Trial, outcome: Outcome, *, is_confirmed: bool) -> str:
    """The trial's own note on one line, and the reason for every empty cell."""
    parts = [" ".join(trial.note.split())]
    parts += [over_note(trial, outcome), languages_note(trial)]
    if trial.state == "stopped" and trial.accuracy:
        parts.append(f"WER over the first {len(trial.accuracy.utterances)} of {outcome.utterances} utterances")
    if trial.state == "complete" and not is_confirmed:
        parts.append("not confirmed" if outcome.confirm_speech else "no confirm set")
    record = outcome.artifacts.get(trial.recipe.id)
    if record is None and trial.state == "complete":
        parts.append("not exported")
    elif record:
        parts.append(record.note)
        parts += new_notes(outcome, trial)
        parts.append(flops_note(outcome, trial))
    if trial.costs.latency_ms is None:
        parts.append(f"no latency on {outcome.device}")
    elif trial.costs.energy_mj is None:
        parts.append("no energy: the device profile has no power")
    return "; ".join(filter(None, parts))
