"""What a log shows of a run that goes on."""

from dataclasses import replace
from io import StringIO

from rich.console import Console

from search.outcome import Outcome
from search.run.progress import Progress
from search.run.time_budget import End


def log_of(outcome: Outcome, *, elapsed_s: float) -> list[str]:
    console = Console(file=StringIO(), width=300)
    with Progress(console, End(seconds=7200.0, trials=None)) as progress:
        progress.started(outcome.trials[-1].number, outcome.trials[-1].recipe)
        progress.finished(outcome, elapsed_s)
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined]


def test_a_log_has_the_recipe_from_the_beginning_of_a_trial(outcome):
    first, *_ = log_of(outcome, elapsed_s=80.0)
    recipe = outcome.trials[-1].recipe
    assert first.split(maxsplit=4) == ["trial", "7", "begins", recipe.id, recipe.summary()]


def test_the_rate_is_that_of_the_trials_and_not_of_the_set_up(outcome):
    """Six scored trials of 25 s and one rejected in 0 s are 144 an hour each, whatever loading took."""
    seconds = [0.0 if trial.state == "rejected" else 25.0 for trial in outcome.trials]
    trials = tuple(replace(trial, seconds=s) for trial, s in zip(outcome.trials, seconds, strict=True))
    for elapsed_s in (180.0, 3600.0):
        *_, headline = log_of(replace(outcome, trials=trials), elapsed_s=elapsed_s)
        assert ", 144 trials/h," in headline
