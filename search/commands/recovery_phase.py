"""Whether a search trains what it found, on which speech, and when its search proper stands still."""

from collections.abc import Callable
from dataclasses import replace

from common.errors import InputError
from search.configuration.config import SearchConfig
from search.engines.base import Engine
from search.loaded import Loaded
from search.loading import Say
from search.records.ledger import Ledger
from search.records.study_store import StudyStore
from search.run.interrupts import Interruption
from search.run.loop import Watcher
from search.run.recovery import Recovery
from search.run.screening import Screening
from search.run.standstill import Standstill
from search.run.time_budget import RunClock, TimeBudget
from search.scorer import Scorer
from search.session import Session

NOTHING_LEFT = (
    "there is no speech to train on: calibration and the recordings without transcripts hold nothing but what the run "
    "is measured on"
)


def settled(asked: SearchConfig, say: Say) -> SearchConfig:
    """The configuration with which a new run begins, and a note where only speech is missing for a recovery."""
    if asked.lacks_speech_to_train_on:
        say("Note: nothing is trained: calibration hears the search's speech (give --calibration or --unlabelled)")
    return asked.settled()


def check_speech(asked: SearchConfig, loaded: Loaded) -> None:
    """Raise InputError where a recovery was asked for and there is no speech to train on."""
    if asked.recover == "auto" and loaded.speech_to_train_on is None:
        raise InputError(f"--recover auto: {NOTHING_LEFT}; give other speech")


def with_speech(session: Session, say: Say) -> Session:
    """The session as it is, or without the recovery that nobody asked for and that has no speech."""
    if session.config.recover != "auto" or session.training:
        return session
    say(f"Note: nothing is trained: {NOTHING_LEFT}")
    return replace(session, config=session.config.model_copy(update={"recover": "off", "recover_share": None}))


def open_standstill(session: Session, scorer: Scorer, screening: Screening | None) -> Standstill | None:
    """What ends the search early; None where nothing does."""
    patience = session.config.patience
    if screening is None or patience is None:
        return None
    return Standstill(
        screening.archive,
        screening.target,
        screening.cheapest_within,
        patience=patience,
        most=scorer.objective(session.original),
    )


def open_recovery(  # noqa: PLR0913 - the parts of a run
    *,
    session: Session,
    store: StudyStore,
    ledger: Ledger,
    engine: Engine,
    scorer: Scorer,
    screening: Screening | None,
    clock: RunClock,
    budget: TimeBudget,
    watcher: Watcher,
    interruption: Interruption,
    say: Callable[[str], None],
) -> Recovery | None:
    """The run's recovery; None where it has none."""
    config = session.config
    if config.recover != "auto" or screening is None or session.training is None:
        return None
    if budget.end.seconds is None:
        say("Note: nothing is trained without --hours: training is given a share of the run's time")
        return None
    return Recovery(
        session=session,
        speech=session.training,
        store=store,
        ledger=ledger,
        engine=engine,
        scorer=scorer,
        screening=screening,
        clock=clock,
        budget=replace(budget, training_share=config.recover_share or 0.0),
        watcher=watcher,
        interruption=interruption,
        say=say,
    )
