"""The readable end of a run: baseline against pick, what to mind, and where the files are."""

from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from search.comparison import compare, problems, shown_trial
from search.outcome import Outcome


def print_summary(outcome: Outcome, console: Console, *, folder: Path) -> None:
    """Print to `console`; `folder` is the run's, named with its files."""
    pick = shown_trial(outcome)
    console.print(_table(outcome))
    console.print(Text(f"Recipe {pick.recipe.id}: {pick.recipe.summary()}"))
    for problem in problems(outcome):
        console.print(Text(f"Note: {problem}", style="yellow"))
    console.print(Text(f"{_counts(outcome)} The front of {len(outcome.front)} is in {folder / 'pareto.csv'},"))
    console.print(Text(f"every trial in {folder / 'trials.csv'}, the report in {folder / 'report.html'}."))


def _table(outcome: Outcome) -> Table:
    pick = shown_trial(outcome)
    role = "Pick" if outcome.recommended else "Nearest"
    table = Table(title=Text(f"{outcome.model} on {outcome.device}, {outcome.speech}"), title_justify="left")
    table.add_column("")
    for heading in ("Baseline", f"{role}: trial {pick.number}", "Change"):
        table.add_column(heading, justify="right")
    table.add_column("")
    for row in compare(outcome):
        table.add_row(row.label, str(row.baseline), str(row.pick), row.change, row.note)
    return table


def _counts(outcome: Outcome) -> str:
    states = [trial.state for trial in outcome.trials]
    kinds = ("complete", "stopped", "rejected", "failed")
    counts = ", ".join(f"{states.count(kind)} {kind}" for kind in kinds if kind in states)
    return f"{len(states)} trials: {counts}."
