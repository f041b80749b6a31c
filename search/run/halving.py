"""Successive halving over recipes that are trained (Jamieson and Talwalkar 2016, arXiv 1502.07943): who, how long.

All are trained for some time; the better half goes on with twice the time, until one is left. What decides is
divergence, which says in seconds what a WER says in minutes and with more noise. All here are functions of what was
measured: a run that goes on decides as before.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import inf, log

from compression.recipe.recovery_spec import RecoveryMethod
from evaluators.accuracy.divergence import Divergence
from search.engines.archive import Judged
from search.outcome import EndReason

MOST_TRAINED = 4
"""Recipes with which the first rung begins."""
LEAST_S = 600.0
"""Of training in the first rung; less is of little use: the first epochs are slow."""
WITHIN_REACH = 1.25
"""What diverges more than so many times the target is not trained: training took a seventh off at most
(docs/training.md)."""
SLOPE_UP_TO = 4.0
"""Times the target: the part of the front from which is told how divergence falls as cost rises."""
COMFORTABLE = 0.8
"""What diverges at most this share of the target needs no more training."""
FINALISTS = 2
"""Trained recipes that get a WER at most."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """A recipe of the run that is trained. `divergence`: before."""

    recipe_id: str
    trial: int
    method: RecoveryMethod
    objective: float
    divergence: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Rung:
    """What came of training a source in one rung, from where the rung before ended.

    `recipe_id`, `divergence`: of the better weights; None where there are none. `problem`: why it is trained no more.
    """

    source_id: str
    rung: int
    recipe_id: str | None
    divergence: Divergence | None
    steps: int
    seconds: float
    problem: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Halving:
    """Where a run's recovery stands.

    `search_ended`: why the search before it ended. `target`: the largest divergence within the budget; `rate`: by
    which power divergence falls as cost rises. `seconds`: of the training in flight, once it has begun; `begun`: how
    often it began without an evaluation since. `is_trained`: what is left is scoring; `is_over`: nothing is.
    """

    search_ended: EndReason
    target: float
    rate: float
    sources: tuple[Source, ...]
    results: tuple[Rung, ...] = ()
    seconds: float | None = None
    begun: int = 0
    is_trained: bool = False
    is_over: bool = False

    def standing(self, source: Source) -> "Standing":
        """What is known of a source by now."""
        mine = [result for result in self.results if result.source_id == source.recipe_id]
        return Standing(source=source, rungs=tuple(mine))

    @property
    def standings(self) -> list["Standing"]:
        return [self.standing(source) for source in self.sources]


@dataclass(frozen=True, kw_only=True, slots=True)
class Standing:
    """A source and what its training brought so far."""

    source: Source
    rungs: tuple[Rung, ...]

    @property
    def best(self) -> Rung | None:
        """The last rung that made better weights."""
        return next((result for result in reversed(self.rungs) if result.recipe_id), None)

    @property
    def problem(self) -> str:
        return self.rungs[-1].problem if self.rungs else ""

    @property
    def is_better(self) -> bool:
        """Than it was before."""
        return self.best is not None and self.divergence < self.source.divergence

    @property
    def divergence(self) -> float:
        best = self.best
        return best.divergence.mean if best and best.divergence else self.source.divergence


@dataclass(frozen=True, kw_only=True, slots=True)
class NextTraining:
    """Whom to train now. `share`: of the time that is left for training."""

    source: Source
    rung: int
    share: float


def eligible(front: Sequence[Judged], *, bound: float, target: float) -> list[Judged]:
    """Of the front, cheapest first: what costs less than `bound`, and is over the target but within reach of it."""
    found = [m for m in front if m.objective < bound and target < m.divergence.mean <= WITHIN_REACH * target]
    return sorted(found, key=lambda member: member.objective)


def affordable(count: int, training_s: float, *, least_s: float) -> int:
    """With how many of `count` recipes the halving can begin, if the first rung is to have `least_s` for each."""
    fitting = (n for n in range(min(count, MOST_TRAINED), 0, -1) if training_s / work(n, n, 0) >= least_s)
    return next(fitting, 0)


def spread(members: Sequence[Judged], count: int) -> list[Judged]:
    """So many of them, as evenly over the logarithm of cost as they lie; cheapest first."""
    if not members:
        return []
    left = sorted(members, key=lambda member: member.objective)
    low, high = log(left[0].objective), log(left[-1].objective)
    chosen = []
    for index in range(min(count, len(left))):
        place = low + (high - low) * (index + 0.5) / count
        nearest = min(left, key=lambda member: abs(log(member.objective) - place))
        left.remove(nearest)
        chosen.append(nearest)
    return sorted(chosen, key=lambda member: member.objective)


def work(waiting: int, members: int, rung: int) -> int:
    """What is left to do, in trainings of the first rung: `waiting` of the rung's members, then halves."""
    total = waiting * 2**rung
    while members > 1:
        members, rung = (members + 1) // 2, rung + 1
        total += members * 2**rung
    return total


def promise(objective: float, divergence: float, *, target: float, rate: float) -> float:
    """The objective at which a recipe would be within the target, going along the front; its own where it is."""
    return float(objective * max(1.0, divergence / target) ** (1 / rate))


def survivors(trained: Sequence[Standing], halving: Halving) -> list[Standing]:
    """Who of a rung goes on: the half that promises most, without what failed, is good enough or is beaten by that."""
    bound = _beaten_from(halving)
    going_on = [s for s in trained if not s.problem and not _is_enough(s, halving) and s.source.objective < bound]
    return sorted(going_on, key=lambda s: _promise(s, halving))[: (len(trained) + 1) // 2]


def next_training(halving: Halving) -> NextTraining | None:
    """The first training of the first rung that is not finished; None when all are.

    The cheapest come first; what costs more than one that is good enough meanwhile is left out.
    """
    for rung, members in _rungs(halving):
        bound = _beaten_from(halving)
        waiting = [s for s in members if len(s.rungs) <= rung and s.source.objective < bound]
        if waiting:
            share = 2**rung / work(len(waiting), len(members), rung)
            return NextTraining(source=waiting[0].source, rung=rung, share=share)
    return None


def _rungs(halving: Halving) -> Iterator[tuple[int, list[Standing]]]:
    """Each with its members, cheapest first; who asks for the next one has seen that all members are trained.

    Who survived a rung is told by what was known at its end.
    """
    rung, members = 0, list(halving.sources)
    while members:
        yield rung, [halving.standing(source) for source in members]
        until = replace(halving, results=tuple(result for result in halving.results if result.rung <= rung))
        going_on = survivors([until.standing(source) for source in members], until) if len(members) > 1 else []
        members = sorted((standing.source for standing in going_on), key=lambda source: source.objective)
        rung += 1


def _is_enough(standing: Standing, halving: Halving) -> bool:
    return standing.best is not None and standing.divergence <= COMFORTABLE * halving.target


def _beaten_from(halving: Halving) -> float:
    """The objective from which on a recipe costs no less than one that is good enough."""
    return min((s.source.objective for s in halving.standings if _is_enough(s, halving)), default=inf)


def finalists(halving: Halving) -> list[Standing]:
    """Who gets a WER: the cheapest within the target and the next one, or the one that promises most.

    Nobody whom training brought no nearer to the original.
    """
    trained = [standing for standing in halving.standings if standing.is_better]
    ranked = sorted(trained, key=lambda s: (s.divergence > halving.target, _promise(s, halving)))
    return [s for n, s in enumerate(ranked[:FINALISTS]) if n == 0 or s.divergence <= halving.target]


def _promise(standing: Standing, halving: Halving) -> float:
    return promise(standing.source.objective, standing.divergence, target=halving.target, rate=halving.rate)
