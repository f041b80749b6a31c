"""`whisperfit search` and `whisperfit resume`."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from time import monotonic
from typing import Any

from rich.console import Console

from common.errors import INTERRUPTED_EXIT
from common.terminal import tell
from evaluators.speech.speech_set import SpeechSet
from search.artifacts import make_artifact
from search.commands.own_recipes import check_own, read_own
from search.commands.report import NO_RECIPE_EXIT, write_all
from search.commands.start_from import Source, take_over
from search.configuration.config import SearchConfig
from search.engines.archive import Archive
from search.engines.base import Engine
from search.engines.enumeration import Enumeration
from search.engines.evolution import Evolution
from search.engines.local_steps import LocalSteps
from search.engines.nni_engine import open_nni_engine
from search.engines.nni_experiment import check_engine
from search.engines.optuna_engine import OptunaEngine
from search.engines.proof import Priced, Proof
from search.engines.proposals import starting_genes
from search.outcome import ArtifactRecord, EndReason, Outcome
from search.records.folder import RunFolder
from search.records.ledger import Ledger
from search.records.run_records import (
    check_configuration,
    load_elapsed,
    load_taken_over,
    normaliser_note,
    save_configuration,
    save_facts,
)
from search.records.study_store import StudyStore, advising
from search.report.result_files import ResultFiles
from search.run.confirmation import confirm
from search.run.exporting import export_front
from search.run.interrupts import Interruption
from search.run.loop import Run
from search.run.own_recipes import OwnRecipes
from search.run.progress import Progress
from search.run.screening import Screening
from search.run.time_budget import End, RunClock, TimeBudget
from search.run.unjudged import how_it_ended
from search.scorer import Scorer
from search.session import Loaded, Session, open_session, reopen_session
from search.space.space import Space
from search.trial import Trial


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
class Ending:
    """What comes after a search, or after a recovery: the front confirmed, exported, measured."""

    session: Session
    scorer: Scorer
    ledger: Ledger
    clock: RunClock
    progress: Progress
    interruption: Interruption

    def reach(self, models: Path) -> bool:
        """Confirm what is on the front, and export it into `models`; False when interrupted."""
        confirmed = self.session.confirm is None or confirm(
            self.ledger, self.scorer.confirm, self.progress, self.interruption
        )
        self.clock.save()
        exported = confirmed and export_front(self.ledger, self._make, models, self.progress, self.interruption)
        self.clock.save()
        return exported

    def _make(self, trial: Trial, folder: Path) -> ArtifactRecord:
        return make_artifact(self.session, trial.recipe, folder, trial.heard)


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
    config = SearchConfig.build(config_file, flags)
    RunFolder.check_free(out, config)
    check_engine(config)
    source = Source.open(beginning.start_from) if beginning.start_from else None

    def check(loaded: Loaded) -> None:
        check_own(beginning.own, loaded)
        if source:
            source.check(loaded)

    session = open_session(config, tell, check)
    with RunFolder.begun(out, config) as folder:
        folder.write_environment(session.digests)
        session, store = replace(session, recovered=folder.recovered), StudyStore(folder.study_file)
        OwnRecipes(store).give(read_own(beginning.own, session.model, folder.recovered))
        if source:
            take_over(source, session, store, tell)
        end = _end(config, store)
        _run_to_end(folder, session, store, end, started=started, as_json=as_json)


def resume_search(path: Path, *, hours: float | None, trials: int | None, as_json: bool) -> None:
    """Go on with a run: `hours` from now on, `trials` in all; without either, what the run still has left.

    Raises InputError when the model, the speech, the device profile or what trials are judged by changed since the
    run began, and when another process writes into it.
    """
    started = monotonic()
    folder = RunFolder.open_to_write(path)
    with folder.locked():
        config, store = folder.config(), StudyStore(folder.study_file)
        check_configuration(store, config)
        check_engine(config)
        session = reopen_session(folder, tell)
        folder.record_versions()
        end = _end(config, store)
        if hours is not None or trials is not None:
            end = End(seconds=None if hours is None else load_elapsed(store) + hours * 3600, trials=trials)
        _run_to_end(folder, session, store, end, started=started, as_json=as_json)


def _end(config: SearchConfig, store: StudyStore) -> End:
    """By the configuration; trials that another run measured come on top."""
    trials = None if config.trials is None else config.trials + load_taken_over(store)
    return End(seconds=_seconds(config.hours), trials=trials)


def _seconds(hours: float | None) -> float | None:
    return None if hours is None else hours * 3600


def _run_to_end(  # noqa: PLR0913 - the parts of a run
    folder: RunFolder, session: Session, store: StudyStore, end: End, *, started: float, as_json: bool
) -> None:
    clock = RunClock(store, monotonic, started=started)
    results = ResultFiles(folder.path, session.model.dimensions)
    with (
        Progress(Console(stderr=True), end) as progress,
        advising(folder.study_file, f"whisperfit resume {folder.path}"),
        ExitStack() as opened,
    ):
        if note := normaliser_note(store, session.facts):
            progress.say(f"Note: {note}")
        save_configuration(store, session.config)
        save_facts(store, session.facts)
        scorer, ledger, interruption = Scorer(session), Ledger(store), Interruption(progress.interrupted)
        recorder = _Recorder(progress, results)
        everything = cache(partial(Enumeration.of, session.space, scorer))
        engine, screening, proof = opened.enter_context(
            _engine(folder, session, store, ledger, scorer, everything=everything)
        )
        run = Run(
            space=session.space,
            engine=engine,
            screening=screening,
            own=OwnRecipes(store),
            proof=proof,
            scorer=scorer,
            ledger=ledger,
            clock=clock,
            watcher=recorder,
            interruption=interruption,
        )
        budget = TimeBudget(ledger=ledger, end=end, confirm_share=_confirm_share(session))
        ending = Ending(
            session=session, scorer=scorer, ledger=ledger, clock=clock, progress=progress, interruption=interruption
        )
        ledger.end(None)
        reason = run.search(budget)
        finished = reason != "interrupted" and ending.reach(folder.models)
        _keep_end(ledger, session.space, everything, reason if finished else "interrupted")
    outcome = write_all(folder, ledger.outcome(), results, as_json=as_json)
    if not finished:
        sys.stderr.write(f"Interrupted; go on with: whisperfit resume {folder.path}\n")
        sys.exit(INTERRUPTED_EXIT)
    if outcome.recommended is None:
        sys.exit(NO_RECIPE_EXIT)


def _keep_end(ledger: Ledger, space: Space, everything: Priced, reason: EndReason) -> None:
    """Keep why the run ended and, where it came to its end, what it left open."""
    if not ledger.trials or ledger.trials[0].accuracy is None:
        return
    outcome = ledger.outcome()
    ledger.end(how_it_ended(outcome, space, None if reason == "interrupted" else everything(), reason))


@contextmanager
def _engine(  # noqa: PLR0913 - the parts of a run
    folder: RunFolder, session: Session, store: StudyStore, ledger: Ledger, scorer: Scorer, *, everything: Priced
) -> Iterator[tuple[Engine, Screening | None, Proof | None]]:
    """The engine that the configuration names, what judges its proposals by divergence, and how it proves an optimum.

    What it has started ends with the block.
    """
    config, space = session.config, session.space
    if config.engine == "nni":
        with open_nni_engine(folder.path, store, space, config) as engine:
            yield engine, None, None
        return
    sampler = OptunaEngine(store, space, sampler=config.sampler, seed=config.seed)
    if config.engine == "evolution":
        archive = Archive()
        screening = Screening(archive, ledger, space, scorer.divergence, confidence=config.confidence)
        target, seed = screening.target, config.seed
        proof = Proof(space, everything, archive, ledger, target=target, bound=screening.bound, seed=seed)
        evolution = Evolution(sampler, space, archive, scorer, target=target, seed=seed, proof=proof)
        yield evolution, screening, proof
    elif config.engine == "steps":
        yield LocalSteps(sampler, space, ledger, scorer), None, None
    else:
        for genes in starting_genes(space):
            sampler.enqueue(genes)
        yield sampler, None, None


def _confirm_share(session: Session) -> float:
    """Seconds of confirm speech for each second of the search's; 0 without a confirm set."""
    if session.confirm is None:
        return 0.0
    return _seconds_of(session.confirm.speech) / _seconds_of(session.evaluator.speech)


def _seconds_of(speech: SpeechSet) -> float:
    return sum(utterance.duration_s for utterance in speech.utterances)
