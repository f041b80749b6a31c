"""`report.html`: a run in one file that needs no network."""

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

import pandas as pd
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from common.files import write_text_whole
from compression.recipe.dimensions import Dimensions
from evaluators.accuracy.normaliser_names import counted_units
from search.certainty import Estimate
from search.limits.group_budget import MIN_WORDS
from search.outcome import Outcome
from search.report.baseline_vs_pick import budget, compare, provenance, shown_trial
from search.report.content_policy import content_policy
from search.report.csv_files import trials_frame
from search.report.ended import ended_sentence
from search.report.figures import convergence_figure, front_figure, groups_figure, sensitivity_figure, wer_view
from search.report.group_and_silence_notes import group_rows
from search.report.problems import problems

GENES = {
    "mean_weight_bits": "mean weight bits",
    "embedding_bits": "embedding bits",
    "frequent_tokens": "frequent tokens",
    "convolution_bits": "convolution bits",
    "activation_bits": "activation bits",
    "group_size": "group size",
    "heads": "heads",
    "ffn_channels": "FFN channels",
    "encoder_layers": "encoder layers",
    "decoder_layers": "decoder layers",
    "vocabulary": "vocabulary",
    "window_s": "window (s)",
}
"""What the sensitivity figure may show, by column or field of the recipe."""
MIN_TRIALS_FOR_SENSITIVITY = 5


def render_report(
    outcome: Outcome, *, config_toml: str, environment: Mapping[str, str], dimensions: Dimensions, generated: str
) -> str:
    """The page's HTML; `generated` is the date to show. The same arguments give the same page."""
    frame = trials_frame(outcome, dimensions)
    genes = varying_genes(outcome, frame)
    groups = group_rows(outcome, shown_trial(outcome))
    figures = {
        "groups_figure": groups_figure(groups, shown_trial(outcome)) if groups else None,
        "front_figure": front_figure(outcome),
        "convergence_figure": convergence_figure(outcome),
        "sensitivity_figure": sensitivity_figure(outcome, genes) if len(genes.columns) > 1 else None,
    }
    plotly_js = get_plotlyjs()
    page = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True).from_string(
        files(__package__).joinpath("template.html").read_text(encoding="utf-8")
    )
    return page.render(
        outcome=outcome,
        generated=generated,
        provenance=provenance(outcome),
        pick=shown_trial(outcome),
        budget=budget(outcome),
        comparisons=compare(outcome),
        problems=problems(outcome),
        ended=ended_sentence(outcome),
        trials=sorted(outcome.trials, key=lambda trial: trial.number),
        artifact_trials=[trial for trial in outcome.trials if trial.recipe.id in outcome.artifacts],
        rows=frame.set_index("trial").to_dict("index"),
        in_time=_in_time(outcome),
        estimates=_estimates(outcome),
        remarks=_remarks(outcome, frame),
        groups=groups,
        min_group_words=MIN_WORDS,
        tell_languages=any(row.original.language_accuracy is not None for row in groups),
        counted=counted_units(outcome.normaliser),
        worst={trial.number: outcome.worst_group(trial) for trial in outcome.front},
        content_policy=content_policy([plotly_js], filter(None, figures.values())),
        config_toml=config_toml,
        environment=environment,
        plotly_js=Markup(plotly_js),
        **{name: figure and Markup(figure) for name, figure in figures.items()},
    )


def write_report(  # noqa: PLR0913 - a path and what the page shows
    path: Path,
    outcome: Outcome,
    *,
    config_toml: str,
    environment: Mapping[str, str],
    dimensions: Dimensions,
    generated: str,
) -> None:
    """Write the page whole to `path`. Raises OSError."""
    text = render_report(
        outcome, config_toml=config_toml, environment=environment, dimensions=dimensions, generated=generated
    )
    write_text_whole(path, text)


def varying_genes(outcome: Outcome, frame: pd.DataFrame) -> pd.DataFrame:
    """The complete trials' WER and, of GENES, those with more than one value; strongest rank correlation first.

    Without columns beside `wer` when there are too few trials, or all have the same WER.
    """
    recipes = {trial.number: trial.recipe for trial in outcome.trials}
    table = frame[frame["state"] == "complete"]
    for field in ("embedding_bits", "frequent_tokens", "convolution_bits", "group_size"):
        table = table.assign(**{field: [getattr(recipes[number], field) for number in table["trial"]]})
    table = table[["wer", *GENES]].rename(columns=GENES)
    if len(table) < MIN_TRIALS_FOR_SENSITIVITY or table["wer"].nunique() < 2:
        return table[["wer"]]
    varying = [name for name in GENES.values() if table[name].nunique() > 1]
    strength = table[["wer", *varying]].rank().corr()["wer"].abs()
    return table[["wer", *sorted(varying, key=lambda name: -strength[name])]]


def _in_time(outcome: Outcome) -> dict[int, float]:
    """By the number of a trial on the front, in percent how probable it is that it keeps the limits on time, if any."""
    pairs = [(trial.number, outcome.within_time(trial)) for trial in outcome.front]
    return {number: 100 * probability for number, probability in pairs if probability is not None}


def _estimates(outcome: Outcome) -> dict[int, Estimate]:
    """By the number of a trial on the front, how sure it is that it keeps the WER budget; none without divergences."""
    pairs = [(trial.number, outcome.estimate(trial)) for trial in outcome.front if trial.divergence]
    return {number: estimate for number, estimate in pairs if estimate}


def _remarks(outcome: Outcome, frame: pd.DataFrame) -> list[str]:
    """What the front's figure does not show."""
    above = int((100 * frame["wer"] > wer_view(outcome)).sum())
    states = frame["state"].value_counts()
    unscored = int(((frame["state"] == "stopped") & frame["wer"].isna()).sum())
    remarks = {
        f"{above} with a larger WER lie above the picture: double-click it to see all.": above,
        f"Without a WER, so not shown: {states.get('rejected', 0)} rejected.": states.get("rejected", 0),
        f"Judged by divergence alone, so not shown: {unscored}.": unscored,
        f"Failed, so not shown: {states.get('failed', 0)}.": states.get("failed", 0),
    }
    return [text for text, count in remarks.items() if count]
