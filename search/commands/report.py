"""`whisperfit report`: the CSV files and report.html, from what a run's memory holds."""

import json
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from search.engines.memory import Memory
from search.findings import read_outcome, recall_facts
from search.folder import RunFolder
from search.outcome import Outcome
from search.report import write_report
from search.results import write_results
from search.summary import outcome_values, print_summary


def write_report_again(path: Path, *, as_json: bool) -> None:
    """Rewrite a run's results and print its summary."""
    folder = RunFolder.open(path)
    write_all(folder, Memory(folder.study_file), as_json=as_json)


def write_all(folder: RunFolder, memory: Memory, *, as_json: bool) -> Outcome:
    """Write CSV files and report, print the summary on stderr and, with `as_json`, one JSON object on stdout."""
    outcome, dimensions = read_outcome(memory), recall_facts(memory).dimensions
    write_results(folder.path, outcome, dimensions)
    write_report(
        folder.path / "report.html",
        outcome,
        config_toml=folder.config_file.read_text(encoding="utf-8"),
        environment=folder.environment(),
        dimensions=dimensions,
        generated=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )
    print_summary(outcome, Console(stderr=True), folder=folder.path)
    if as_json:
        print(json.dumps(outcome_values(outcome, folder.path)))
    return outcome
