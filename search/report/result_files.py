"""`trials.csv`, `pareto.csv` and `artifacts.csv` of one run, kept up to date while it goes on."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from io import StringIO
from math import isnan
from pathlib import Path

from common.files import write_text_whole
from compression.recipe.dimensions import Dimensions
from search.outcome import Outcome
from search.report.csv_files import ARTIFACT_COLUMNS, COLUMNS, FLOAT_FORMAT, artifact_rows, pareto_rows, trial_row
from search.trial import Trial


class ResultFiles:
    """Every file is written whole, in one step, from lines that are worked out once.

    So a reader, or a killed process, sees no half line, and a write costs what the disk takes.
    """

    def __init__(self, folder: Path, dimensions: Dimensions) -> None:
        self.folder = folder
        self.dimensions = dimensions
        self._lines: dict[int, tuple[tuple[object, ...], str]] = {}
        self._written: dict[str, str] = {}

    def write(self, outcome: Outcome) -> None:
        """Bring the files up to an outcome of the run. Raises OSError."""
        trials = sorted(outcome.trials, key=lambda trial: trial.number)
        self._write("trials.csv", [_line(COLUMNS), *(self._trial_line(trial, outcome) for trial in trials)])
        self._write("pareto.csv", _table(COLUMNS, pareto_rows(outcome, self.dimensions)))
        self._write("artifacts.csv", _table(ARTIFACT_COLUMNS, artifact_rows(outcome)))

    def _trial_line(self, trial: Trial, outcome: Outcome) -> str:
        """As it was, unless what it shows is another thing now."""
        recipe_id, pick = trial.recipe.id if outcome.confirmations or outcome.artifacts else "", outcome.recommended
        shown = (
            trial,
            pick is not None and trial.number == pick.number,
            outcome.confirmations.get(recipe_id),
            outcome.artifacts.get(recipe_id),
            outcome.figures(outcome.baseline) if recipe_id in outcome.artifacts else None,
            outcome.estimate(trial),
        )
        before, line = self._lines.get(trial.number, ((), ""))
        if before != shown:
            line = _line(_cells(COLUMNS, trial_row(trial, outcome, self.dimensions)))
            self._lines[trial.number] = (shown, line)
        return line

    def _write(self, name: str, lines: Iterable[str]) -> None:
        text, path = "".join(lines), self.folder / name
        if self._written.get(name) != text or not path.exists():
            write_text_whole(path, text)
            self._written[name] = text


def _table(columns: Sequence[str], rows: Iterable[Mapping[str, object]]) -> list[str]:
    return [_line(columns), *(_line(_cells(columns, row)) for row in rows)]


def _cells(columns: Sequence[str], row: Mapping[str, object]) -> list[str]:
    return [_text(row.get(column)) for column in columns]


def _text(value: object) -> str:
    """Nothing for what is missing; so many digits that the front in the file is a front."""
    if value is None or (isinstance(value, float) and isnan(value)):
        return ""
    return FLOAT_FORMAT % value if isinstance(value, float) else str(value)


def _line(cells: Sequence[str]) -> str:
    line = StringIO()
    csv.writer(line, lineterminator="\n").writerow(cells)
    return line.getvalue()
