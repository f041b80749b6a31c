"""What of a run's time is training's, with made-up trials."""

from pathlib import Path

import pytest

from search.records.ledger import Ledger
from search.records.run_records import save_facts
from search.records.study_store import StudyStore
from search.run.time_budget import MEASURING_S, End, TimeBudget
from tests.search.answers import SECONDS
from tests.search.conftest import _trial
from tests.search.run.test_loop import FACTS

TRIAL_S = SECONDS
KEPT_S = 0.5 * TRIAL_S + 2 * TRIAL_S + MEASURING_S
"""The original alone is confirmed in half its time, and exported: two evaluations, and a measurement."""
HOUR = 3600.0


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    store = StudyStore(tmp_path / "study.db")
    save_facts(store, FACTS)
    ledger = Ledger(store)
    ledger.add(_trial(0, objective=1.0, wer=0.05, seconds=TRIAL_S))
    return ledger


def budget(ledger: Ledger, share: float, seconds: float | None = HOUR) -> TimeBudget:
    return TimeBudget(ledger=ledger, end=End(seconds=seconds, trials=None), confirm_share=0.5, training_share=share)


@pytest.mark.parametrize("share", [0.0, 0.4])
def test_the_search_ends_when_the_next_trial_would_take_the_time_of_training_and_the_end(
    ledger: Ledger, share: float
) -> None:
    last = (1 - share) * (HOUR - KEPT_S) - TRIAL_S
    assert budget(ledger, share).training_s == pytest.approx(share * (HOUR - KEPT_S))
    assert budget(ledger, share).used_up(last - 0.01) is None
    assert budget(ledger, share).used_up(last + 0.01) == "time"


def test_training_leaves_time_to_score_confirm_and_export_what_comes_out(ledger: Ledger) -> None:
    each = TRIAL_S + 0.5 * TRIAL_S + TRIAL_S + MEASURING_S
    assert budget(ledger, 0.4).left_for_training(1000.0, 2) == pytest.approx(HOUR - 1000 - KEPT_S - 2 * each)
    assert budget(ledger, 0.4).left_for_training(HOUR, 2) == 0


def test_without_an_end_in_time_nothing_is_trained(ledger: Ledger) -> None:
    endless = budget(ledger, 0.4, None)
    assert (endless.training_s, endless.left_for_training(0.0, 2), endless.used_up(1e9)) == (0, 0, None)
