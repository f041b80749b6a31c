"""`whisperfit report`: the CSV files and report.html, from what a run's store holds."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from compression.recipe.dimensions import Dimensions
from search.engines.study_store import StudyStore
from search.folder import RunFolder
from search.outcome import Outcome
from search.report.csv_files import write_results
from search.report.page import write_report
from search.report.summary import outcome_values, print_summary
from search.run_records import load_facts, read_outcome

NO_RECIPE_EXIT = 3


def write_report_again(path: Path, *, as_json: bool) -> None:
    """Rewrite a run's results and print its summary."""
    folder = RunFolder.open_to_write(path)
    write_all(folder, StudyStore(folder.study_file), as_json=as_json)


def write_all(folder: RunFolder, store: StudyStore, *, as_json: bool) -> Outcome:
    """Write CSV files and report, print the summary on stderr and, with `as_json`, one JSON object on stdout."""
    outcome, dimensions = read_outcome(store), load_facts(store).dimensions
    config_toml = folder.config_file.read_text(encoding="utf-8")
    environment = folder.environment()
    write_outcome(folder.path, outcome, dimensions, config_toml=config_toml, environment=environment, as_json=as_json)
    return outcome


def write_outcome(  # noqa: PLR0913 - where, and what the files show
    path: Path,
    outcome: Outcome,
    dimensions: Dimensions,
    *,
    config_toml: str,
    environment: Mapping[str, str],
    as_json: bool,
) -> None:
    """Write CSV files and report into a folder, print the summary and, with `as_json`, one JSON object on stdout."""
    write_results(path, outcome, dimensions)
    write_report(
        path / "report.html",
        outcome,
        config_toml=config_toml,
        environment=environment,
        dimensions=dimensions,
        generated=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )
    print_summary(outcome, Console(stderr=True), folder=path)
    if as_json:
        print(json.dumps(outcome_values(outcome, path)))
