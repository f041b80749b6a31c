"""`whisperfit search` and `whisperfit resume`."""

import sys
from pathlib import Path
from time import monotonic
from typing import Any

from rich.console import Console

from common.errors import INTERRUPTED_EXIT
from search.commands.report import NO_RECIPE_EXIT, write_all
from search.config import SearchConfig
from search.engines.optuna_engine import OptunaEngine
from search.engines.study_store import StudyStore, advising
from search.folder import RunFolder
from search.outcome import Outcome
from search.progress import Progress
from search.report.csv_files import write_results
from search.run import End, Run
from search.run_records import load_elapsed, save_facts
from search.session import Session, open_session, reopen_session


class _Recorder:
    """Passes what happens on to the progress display, and rewrites the CSV files after every trial."""

    def __init__(self, progress: Progress, folder: RunFolder, session: Session) -> None:
        self._progress = progress
        self._folder = folder
        self._dimensions = session.model.dimensions
        self.started = progress.started
        self.confirming = progress.confirming
        self.exporting = progress.exporting
        self.interrupted = progress.interrupted

    def finished(self, outcome: Outcome, elapsed_s: float) -> None:
        write_results(self._folder.path, outcome, self._dimensions)
        self._progress.finished(outcome, elapsed_s)


def run_new_search(*, out: Path, config_file: Path | None, flags: dict[str, Any], as_json: bool) -> None:
    """Start a run in a new folder and see it through."""
    started = monotonic()
    config = SearchConfig.build(config_file, flags)
    RunFolder.check_free(out, config)
    session = open_session(config, Console(stderr=True).print)
    folder = RunFolder.create(out, config)
    folder.write_environment(session.digests)
    store = StudyStore(folder.study_file)
    end = End(seconds=_seconds(config.hours), trials=config.trials)
    _run_to_end(folder, session, store, end, started=started, as_json=as_json)


def resume_search(path: Path, *, hours: float | None, trials: int | None, as_json: bool) -> None:
    """Go on with a run: `hours` from now on, `trials` in all; without either, what the run still has left.

    Raises InputError when the model, the speech or the device profile changed since the run began.
    """
    started = monotonic()
    folder = RunFolder.open_to_write(path)
    config = folder.config()
    session = reopen_session(folder, Console(stderr=True).print)
    folder.record_versions()
    store = StudyStore(folder.study_file)
    end = End(seconds=_seconds(config.hours), trials=config.trials)
    if hours is not None or trials is not None:
        end = End(seconds=None if hours is None else load_elapsed(store) + hours * 3600, trials=trials)
    _run_to_end(folder, session, store, end, started=started, as_json=as_json)


def _seconds(hours: float | None) -> float | None:
    return None if hours is None else hours * 3600


def _run_to_end(  # noqa: PLR0913 - the parts of a run
    folder: RunFolder, session: Session, store: StudyStore, end: End, *, started: float, as_json: bool
) -> None:
    config = session.config
    save_facts(store, session.facts)
    engine = OptunaEngine(store, session.space, sampler=config.sampler, seed=config.seed)
    with Progress(Console(stderr=True), end) as progress:
        recorder = _Recorder(progress, folder, session)
        run = Run(session, store, engine, clock=monotonic, started=started, watcher=recorder)
        with advising(folder.study_file, f"make room, then whisperfit resume {folder.path}"):
            finished = run.search(end) and run.confirm() and run.export(folder.models)
    outcome = write_all(folder, store, as_json=as_json)
    if not finished:
        sys.stderr.write(f"Interrupted; go on with: whisperfit resume {folder.path}\n")
        sys.exit(INTERRUPTED_EXIT)
    if outcome.recommended is None:
        sys.exit(NO_RECIPE_EXIT)
