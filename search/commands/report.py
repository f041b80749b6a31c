"""`whisperfit report`: the CSV files and report.html, from what a run's store holds."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from common.errors import InputError
from common.log import note, writes_json
from search.configuration.config import SearchConfig
from search.configuration.study_address import StudyAddress
from search.outcome import Outcome
from search.records.folder import RunFolder
from search.records.run_records import load_environment, load_facts, load_whole_configuration, read_outcome
from search.records.study_store import StudyStore
from search.report.page import write_report
from search.report.result_files import ResultFiles
from search.report.summary import outcome_values, print_summary

NO_RECIPE_EXIT = 3


def write_report_again(path: Path, *, as_json: bool) -> None:
    """Rewrite a run's results and print its summary."""
    folder = RunFolder.open_to_write(path)
    store = StudyStore(folder.study, create=False)
    outcome = read_outcome(store)
    write_all(folder, outcome, ResultFiles(path, load_facts(store).dimensions), as_json=as_json)


def gather(storage: str, study: str, out: Path, *, as_json: bool) -> None:
    """Write the results of a run whose study is in a storage into a folder here, which then is the run's too.

    Raises InputError when there is no such study, or the folder holds something else.
    """
    store = StudyStore(StudyAddress.of_storage(storage, study), create=False)
    values = load_whole_configuration(store) | {"storage": storage, "study": study}
    values.pop("on_end", None)  # a command of the machine that led, which this one need not have
    config = SearchConfig.build(None, values)
    if not RunFolder(out).holds_run:
        RunFolder.check_free(out, config)
        RunFolder.create(out, config).keep_environment(load_environment(store))
    elif RunFolder(out).study != store.address:
        raise InputError(f"--out {out}: holds another run; give a new folder")
    write_report_again(out, as_json=as_json)


def write_all(folder: RunFolder, outcome: Outcome, results: ResultFiles, *, as_json: bool) -> Outcome:
    """Write CSV files and report, print the summary on stderr and, with `as_json`, one JSON object on stdout."""
    config_toml = folder.config_file.read_text(encoding="utf-8")
    write_outcome(results, outcome, config_toml=config_toml, environment=folder.environment(), as_json=as_json)
    return outcome


def write_outcome(
    results: ResultFiles, outcome: Outcome, *, config_toml: str, environment: Mapping[str, str], as_json: bool
) -> None:
    """Write CSV files and report into a folder, print the summary and, with `as_json`, one JSON object on stdout."""
    results.write(outcome)
    write_report(
        results.folder / "report.html",
        outcome,
        config_toml=config_toml,
        environment=environment,
        dimensions=results.dimensions,
        generated=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )
    if writes_json():
        note("results", **outcome_values(outcome, results.folder))
    else:
        print_summary(outcome, Console(stderr=True), folder=results.folder)
    if as_json:
        print(json.dumps(outcome_values(outcome, results.folder)))
