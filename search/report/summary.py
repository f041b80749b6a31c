"""The readable end of a run: baseline against pick, what to mind, and where the files are."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from search.outcome import Outcome
from search.report.baseline_vs_pick import compare, provenance, shown_trial
from search.report.ended import ended_sentence
from search.report.problems import problems
from search.trial import Trial


def print_summary(outcome: Outcome, console: Console, *, folder: Path) -> None:
    """Print to `console`; `folder` is the run's, named with its files."""
    pick = shown_trial(outcome)
    if origin := provenance(outcome):
        console.print(Text(origin))
    console.print(_table(outcome))
    console.print(Text(f"Recipe {pick.recipe.id}: {pick.recipe.summary()}"))
    if ended := ended_sentence(outcome):
        console.print(Text(ended))
    for problem in problems(outcome):
        console.print(Text(f"Note: {problem}", style="yellow"))
    console.print(Text(f"{_counts(outcome)} The front of {len(outcome.front)} is in {folder / 'pareto.csv'},"))
    console.print(Text(f"every trial in {folder / 'trials.csv'}, the report in {folder / 'report.html'}."))


def outcome_values(outcome: Outcome, folder: Path) -> dict[str, Any]:
    """The same for scripts, ready for JSON: fractions, and the units of `trials.csv`; null where there is none."""

    def values(trial: Trial | None) -> dict[str, Any] | None:
        return _trial_values(trial, outcome) if trial else None

    return {
        "run": str(folder),
        "model": outcome.model,
        "device": outcome.device,
        "repriced_from": outcome.repriced_from,
        "asked_before": outcome.asked_before,
        "speech": outcome.speech,
        "confirm_speech": outcome.confirm_speech,
        "wer_limit": outcome.wer_limit.wer,
        "group_budget": outcome.group_budget,
        "min_language_accuracy": outcome.min_language_accuracy,
        "trials": len(outcome.trials),
        "front": [trial.number for trial in outcome.front],
        "baseline": values(outcome.baseline),
        "recommended": values(outcome.recommended),
        "least_violating": values(outcome.least_violating),
        "problems": list(problems(outcome)),
        "ended": outcome.ended and asdict(outcome.ended) | {"sentence": ended_sentence(outcome)},
    }


def _trial_values(trial: Trial, outcome: Outcome) -> dict[str, Any]:
    worst = outcome.worst_group(trial)
    accuracy, confirmation = trial.accuracy, outcome.confirmations.get(trial.recipe.id)
    return {
        "trial": trial.number,
        "recipe_id": trial.recipe.id,
        "summary": trial.recipe.summary(),
        "feasible": trial.feasible,
        "objective": trial.objective,
        "wer": accuracy and accuracy.rate.wer,
        "wer_low": accuracy and accuracy.rate.low,
        "wer_high": accuracy and accuracy.rate.high,
        "wer_confirm": confirmation and confirmation.rate.wer,
        "language_accuracy": accuracy and accuracy.language_accuracy,
        "language_accuracy_confirm": confirmation and confirmation.language_accuracy,
        **asdict(trial.costs),
        "time_limit_probability": outcome.within_time(trial),
        "violations": trial.violations,
        "groups": [group.columns for group in accuracy.groups] if accuracy else [],
        "groups_confirm": [group.columns for group in confirmation.groups] if confirmation else [],
        "worst_group": worst and asdict(worst.found.key) | {"over": worst.violation},
    }


def _table(outcome: Outcome) -> Table:
    pick = shown_trial(outcome)
    role = "Pick" if outcome.recommended else "Nearest"
    table = Table(
        title=Text(f"{outcome.model} on {outcome.device}, {outcome.speech}"), title_justify="left", box=SIMPLE_HEAD
    )
    table.add_column("")
    for heading in ("Baseline", f"{role}: trial {pick.number}", "Change"):
        table.add_column(heading, justify="right")
    table.add_column("")
    for row in compare(outcome):
        table.add_row(row.label, str(row.baseline), str(row.pick), row.change, row.remark)
    return table


def _counts(outcome: Outcome) -> str:
    states = [trial.state for trial in outcome.trials]
    kinds = ("complete", "stopped", "rejected", "failed")
    counts = ", ".join(f"{states.count(kind)} {kind}" for kind in kinds if kind in states)
    return f"{len(states)} trials: {counts}."
