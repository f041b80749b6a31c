"""`whisperfit search` and `whisperfit resume`."""

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from time import monotonic
from typing import Any

from rich.console import Console

from common.errors import INTERRUPTED_EXIT
from common.log import tell, write_log, writes_json
from compression.whisper.compute import name_of
from search.commands.ending import Ending, confirm_share
from search.commands.engine import open_engine
from search.commands.on_end import run_on_end, telling_errors
from search.commands.own_recipes import check_own, read_own
from search.commands.recovery_phase import check_speech, open_recovery, open_standstill, settled, with_speech
from search.commands.report import NO_RECIPE_EXIT, write_all
from search.commands.start_from import Source, take_over
from search.commands.workers import check_unused, leading, open_workers
from search.configuration.config import SearchConfig
from search.engines.enumeration import Enumeration
from search.engines.nni_experiment import check_engine
from search.engines.proof import Priced
from search.loaded import Loaded
from search.outcome import EndReason, Outcome
from search.records.folder import RunFolder
from search.records.ledger import Ledger
from search.records.run_records import (
    check_configuration,
    load_elapsed,
    load_taken_over,
    normaliser_note,
    save_configuration,
    save_facts,
    save_setting,
)
from search.records.study_store import StudyStore, advising
from search.report.result_files import ResultFiles
from search.report.summary import outcome_values
from search.run.interrupts import Interruption
from search.run.loop import Run
from search.run.own_recipes import OwnRecipes
from search.run.progress import Progress
from search.run.progress_events import ProgressEvents
from search.run.recovery import search_and_recover
from search.run.time_budget import End, RunClock, TimeBudget
from search.run.unjudged import how_it_ended
from search.scorer import Scorer
from search.session import Session, open_session, reopen_session


class _Recorder:
    """Passes what happens on to the progress display, and brings the CSV files up to date after every trial."""

    def __init__(self, progress: Progress, results: ResultFiles) -> None:
        self._progress = progress
        self._results = results
        self.started = progress.started

    def finished(self, outcome: Outcome, elapsed_s: float) -> None:
        self._results.write(outcome)
        self._progress.finished(outcome, elapsed_s)


@dataclass(frozen=True, kw_only=True)
class Beginning:
    """What a new run begins with. `own`: files of recipes to try first; `start_from`: another run's folder."""

    own: Sequence[Path] = ()
    start_from: Path | None = None


def run_new_search(
    beginning: Beginning = Beginning(), *, out: Path, config_file: Path | None, flags: dict[str, Any], as_json: bool
) -> None:
    """Start a run in a new folder and see it through."""
    started = monotonic()
    asked = SearchConfig.build(config_file, flags)
    _open_log(asked)
    config = settled(asked, tell)
    if config.storage and not config.study:
        config = config.model_copy(update={"study": out.absolute().name})
    RunFolder.check_free(out, config)
    check_engine(config)
    source = Source.open(beginning.start_from) if beginning.start_from else None

    def check(loaded: Loaded) -> None:
        check_own(beginning.own, loaded)
        check_speech(asked, loaded)
        if source:
            source.check(loaded)

    session = with_speech(open_session(config, tell, check), tell)
    with RunFolder.begun(out, session.config) as folder:
        folder.write_environment(session.digests, name_of(session.model.compute))
        session, store = replace(session, recovered=folder.recovered), StudyStore(folder.study)
        check_unused(store, out)
        OwnRecipes(store).give(read_own(beginning.own, session.model, folder.recovered))
        if source:
            take_over(source, session, store, tell)
        end = _end(config, store)
        _run_to_end(folder, session, store, end, started=started, as_json=as_json)


def resume_search(path: Path, *, hours: float | None, trials: int | None, compute: str | None, as_json: bool) -> None:
    """Go on with a run: `hours` from now on, `trials` in all; without either, what the run still has left.

    `compute`: elsewhere than the run did so far.

    Raises InputError when the model, the speech, the device profile or what trials are judged by changed since the
    run began, and when another process writes into it.
    """
    started = monotonic()
    folder = RunFolder.open_to_write(path)
    with folder.locked():
        config, address = folder.config(), folder.study
        _open_log(config)
        store = StudyStore(address, create=address.file is not None)  # one that was killed before it made its study
        check_configuration(store, config)
        check_engine(config)
        session = reopen_session(folder, tell, compute)
        folder.record_versions()
        end = _end(config, store)
        if hours is not None or trials is not None:
            end = End(seconds=None if hours is None else load_elapsed(store) + hours * 3600, trials=trials)
        _run_to_end(folder, session, store, end, started=started, as_json=as_json)


def _open_log(config: SearchConfig) -> None:
    as_json = config.log_format == "json"
    write_log(as_json=as_json, details=as_json)


def _end(config: SearchConfig, store: StudyStore) -> End:
    """By the configuration; trials that another run measured come on top."""
    trials = None if config.trials is None else config.trials + load_taken_over(store)
    return End(seconds=_seconds(config.hours), trials=trials)


def _seconds(hours: float | None) -> float | None:
    return None if hours is None else hours * 3600


def _run_to_end(  # noqa: PLR0913 - the parts of a run
    folder: RunFolder, session: Session, store: StudyStore, end: End, *, started: float, as_json: bool
) -> None:
    """Tell the configuration's `on_end` how it ended, also where that is an error."""
    on_end = session.config.on_end
    with telling_errors(on_end, folder.path, tell):
        outcome, finished = _run(folder, session, store, end, started=started, as_json=as_json)
    run_on_end(on_end, outcome_values(outcome, folder.path) | {"interrupted": not finished}, tell)
    if not finished:
        tell(f"Interrupted; go on with: whisperfit resume {folder.path}")
        sys.exit(INTERRUPTED_EXIT)
    if outcome.recommended is None:
        sys.exit(NO_RECIPE_EXIT)


def _run(  # noqa: PLR0913 - the parts of a run
    folder: RunFolder, session: Session, store: StudyStore, end: End, *, started: float, as_json: bool
) -> tuple[Outcome, bool]:
    """What was found, and whether it came to its end."""
    clock = RunClock(store, monotonic, started=started)
    shown = ProgressEvents if writes_json() else Progress
    results = ResultFiles(folder.path, session.model.dimensions)
    with (
        shown(Console(stderr=True), end) as progress,
        advising(store.address, f"whisperfit resume {folder.path}"),
        leading(store),
        ExitStack() as opened,
    ):
        if note := normaliser_note(store, session.facts):
            progress.say(f"Note: {note}")
        save_configuration(store, session.config)
        save_facts(store, session.facts)
        save_setting(store, session.config, folder.environment())
        scorer, ledger, interruption = Scorer(session), Ledger(store), Interruption(progress.interrupted)
        recorder = _Recorder(progress, results)
        everything = cache(partial(Enumeration.of, session.space, scorer))
        parts = opened.enter_context(open_engine(folder, session, store, ledger, scorer, everything=everything))
        workers = open_workers(
            folder=folder,
            session=session,
            store=store,
            scorer=scorer,
            ledger=ledger,
            interruption=interruption,
            say=progress.say,
        )
        executor = opened.enter_context(workers)
        engine, screening = parts.engine, parts.screening
        run = Run(
            space=session.space,
            engine=engine,
            screening=screening,
            standstill=open_standstill(session, scorer, screening),
            own=OwnRecipes(store),
            proof=parts.proof,
            scorer=scorer,
            ledger=ledger,
            clock=clock,
            watcher=recorder,
            interruption=interruption,
            executor=executor,
        )
        budget = TimeBudget(ledger=ledger, end=end, confirm_share=confirm_share(session))
        recovery = open_recovery(
            session=session,
            store=store,
            ledger=ledger,
            engine=engine,
            scorer=scorer,
            screening=screening,
            clock=clock,
            budget=budget,
            watcher=recorder,
            interruption=interruption,
            say=progress.say,
        )
        ending = Ending(
            session=session, scorer=scorer, ledger=ledger, clock=clock, progress=progress, interruption=interruption
        )
        ledger.end(None)
        reason = search_and_recover(run, budget, recovery)
        finished = reason != "interrupted" and ending.reach(folder.models)
        _keep_end(ledger, session, everything, reason if finished else "interrupted")
    return write_all(folder, ledger.outcome(), results, as_json=as_json), finished


def _keep_end(ledger: Ledger, session: Session, everything: Priced, reason: EndReason) -> None:
    """Keep why the run ended and, where it came to its end, what it left open."""
    if not ledger.trials or ledger.trials[0].accuracy is None:
        return
    outcome = ledger.outcome()
    found = how_it_ended(outcome, session.space, None if reason == "interrupted" else everything(), reason)
    ledger.end(replace(found, stood_still=session.config.patience if reason == "standstill" else None))
