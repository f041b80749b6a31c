"""The CSV files of a run that goes on: as pandas would write them anew each time, and cheap."""

from dataclasses import replace

import pytest

from search.outcome import Confirmation, Outcome
from search.report import result_files as module
from search.report.csv_files import FLOAT_FORMAT, artifacts_frame, pareto_frame, trials_frame
from search.report.result_files import ResultFiles
from tests.search.conftest import DIMENSIONS, make_rate

NAMES = ("trials.csv", "pareto.csv", "artifacts.csv")


def frames(outcome: Outcome) -> list[str]:
    found = (trials_frame(outcome, DIMENSIONS), pareto_frame(outcome, DIMENSIONS), artifacts_frame(outcome))
    return [frame.to_csv(index=False, float_format=FLOAT_FORMAT, lineterminator="\n") for frame in found]


def texts(results: ResultFiles) -> list[str]:
    return [(results.folder / name).read_text(encoding="utf-8") for name in NAMES]


def stages(outcome: Outcome) -> list[Outcome]:
    """A run as it goes on: trial by trial, then confirmed and exported; the pick changes on the way."""
    bare = replace(outcome, confirmations={}, artifacts={})
    growing = [
        replace(
            bare, trials=outcome.trials[:count], front=outcome.trials[:1], recommended=outcome.trials[min(count - 1, 2)]
        )
        for count in range(1, len(outcome.trials) + 1)
    ]
    baseline = outcome.baseline.recipe.id
    exported = replace(outcome, artifacts={baseline: outcome.artifacts[baseline]})
    return [*growing, bare, replace(outcome, artifacts={}), exported, outcome]


def test_after_every_trial_the_files_are_what_pandas_writes_of_the_whole_run(outcome, tmp_path):
    results = ResultFiles(tmp_path, DIMENSIONS)
    for stage in stages(outcome):
        results.write(stage)
        assert texts(results) == frames(stage)


def test_what_is_lost_or_half_written_is_whole_again(outcome, tmp_path):
    results = ResultFiles(tmp_path, DIMENSIONS)
    results.write(outcome)
    for name in NAMES:
        (tmp_path / name).write_text("trial,recipe_id\n0,half a li", encoding="utf-8")
    again = ResultFiles(tmp_path, DIMENSIONS)
    again.write(outcome)
    (tmp_path / "pareto.csv").unlink()
    again.write(outcome)
    assert texts(again) == frames(outcome)


def test_a_trial_costs_its_own_line(outcome, tmp_path, monkeypatch):
    written = []
    row = module.trial_row
    monkeypatch.setattr(module, "trial_row", lambda trial, *rest: written.append(trial.number) or row(trial, *rest))
    results = ResultFiles(tmp_path, DIMENSIONS)
    before = replace(outcome, trials=outcome.trials[:-1])
    results.write(before)
    assert written == [trial.number for trial in before.trials]
    results.write(outcome)
    assert written[len(before.trials) :] == [outcome.trials[-1].number]


def test_a_confirmation_is_shown(outcome, tmp_path):
    results = ResultFiles(tmp_path, DIMENSIONS)
    results.write(outcome)
    confirmed = Confirmation(rate=make_rate(612, 10_000), within_budget=True)
    trial = outcome.trials[3]
    changed = replace(outcome, confirmations=outcome.confirmations | {trial.recipe.id: confirmed})
    results.write(changed)
    assert texts(results) == frames(changed)
    assert "0.0612" in texts(results)[0].splitlines()[1 + trial.number]


@pytest.mark.parametrize("note", ['a "quoted" one', "with, commas", "on\ntwo lines"])
def test_notes_are_quoted_as_pandas_does(note, outcome, tmp_path):
    results = ResultFiles(tmp_path, DIMENSIONS)
    changed = replace(outcome, trials=(*outcome.trials[:-1], replace(outcome.trials[-1], note=note)))
    results.write(changed)
    assert texts(results) == frames(changed)
