"""What the race saves of decoding, and how often it is wrong, by replay of real errors.

    python benchmarks/speed/racing.py [--runs results/first results/second results/base] [--draws 2]

Every trial of the runs that has a WER is raced on sets drawn from the utterances that it heard, with the original's
errors on the same: complete trials heard 80, those that their run stopped 20 to 60. Speakers are drawn with
replacement, with all they said. They are as in the speech (everybody reads one utterance), or fours of utterances in
which the original's errors per word are most alike, so that the errors of one speaker go together. All rules see the
same sets in the same order, after each block of 20.

saved: of the utterances of all sets; in brackets, of those of trials over the budget. wrongly over: of the trials
within the budget on the whole set, those called over it; wrongly under: the reverse. The bootstrap is the rule before
the race: 99.5 % of 2,000 resamples over the limit, asked again after each block (sets of 960 would take it minutes).
"""

import argparse
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from time import perf_counter
from typing import Literal

import numpy as np
import numpy.typing as npt

from evaluators.accuracy.blocks import dealt
from evaluators.accuracy.error_rate import ErrorRate
from search.limits.budget import WerBudget, WerLimit
from search.limits.racing import ALPHA, SURE, evidence_over, evidence_under
from search.limits.stopping import wer_violation
from search.records.study_store import StudyStore
from search.trial import UtteranceErrors

ROOT = Path(__file__).parents[2]
RUNS = tuple(ROOT / "results" / name for name in ("first", "second", "base"))
BLOCK = 20
SIZES = (80, 240, 960)
LARGEST_FOR_BOOTSTRAP = 240
BUDGETS = ("+5%", "+10%", "+50%")
SPEAKERS: Mapping[str, int] = {"one utterance each": 1, "four alike each": 4}

Decision = Literal["over", "under"]
Pair = tuple[UtteranceErrors, UtteranceErrors]
"""A candidate's errors in an utterance, and the original's."""
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Race:
    """A candidate and a set. `scored`: all utterances, in the order heard; `ends`: how many at each block's end."""

    scored: Sequence[UtteranceErrors]
    ends: Sequence[int]
    baseline: Mapping[str, UtteranceErrors]
    limit: WerLimit

    @property
    def is_over(self) -> bool:
        return not self.limit.allows(sum(utterance.errors for utterance in self.scored))


@dataclass(frozen=True, kw_only=True)
class Result:
    """Of one candidate by one rule."""

    is_over: bool
    decision: Decision | None
    heard: int
    utterances: int


Rule = Callable[[Race], Flags]
"""At each block's end, whether the rule is sure."""


def over(race: Race) -> Flags:
    """As `surely_over_budget`, at all ends in one pass."""
    sure = evidence_over(race.scored, race.baseline, wer_limit=race.limit) >= SURE
    return np.array([sure[end - 1] and _is_over_so_far(race, end) for end in race.ends], bool)


def _is_over_so_far(race: Race, end: int) -> bool:
    return wer_violation(race.scored[:end], race.baseline, wer_limit=race.limit) > 0


def under(race: Race) -> Flags:
    """As `over`."""
    sure = evidence_under(race.scored, race.baseline, wer_limit=race.limit) >= SURE
    return np.array([sure[end - 1] for end in race.ends], bool)


def bootstrap(race: Race) -> Flags:
    """The rule before the race."""
    errors = np.array([utterance.errors for utterance in race.scored])
    original = np.array([race.baseline[utterance.id].errors for utterance in race.scored])
    excess = (errors - float(race.limit.rate * race.limit.words) / original.sum() * original).astype(np.float32)
    return np.array(
        [
            not race.limit.allows(errors[:end].sum()) or np.quantile(_resamples(end) @ excess[:end], 0.005) > 0
            for end in race.ends
        ],
        bool,
    )


@cache
def _resamples(count: int) -> npt.NDArray[np.float32]:
    """(2000, count): how often each utterance is in each resample."""
    return np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), 2000).astype(np.float32)


def results(race: Race) -> dict[str, Result]:
    """By name of the rule."""
    above, below = over(race), under(race)
    found = {"race, over": _result(race, above), "race, both": _result(race, above, below)}
    if len(race.scored) <= LARGEST_FOR_BOOTSTRAP:
        found = {"bootstrap": _result(race, bootstrap(race))} | found
    return found


def _result(race: Race, above: Flags, below: Flags | None = None) -> Result:
    """What is decided at the first block's end where the rule is sure."""
    sure = above if below is None else above | below
    if not sure.any():
        return Result(is_over=race.is_over, decision=None, heard=len(race.scored), utterances=len(race.scored))
    first = int(sure.argmax())
    return Result(
        is_over=race.is_over,
        decision="over" if above[first] else "under",
        heard=race.ends[first],
        utterances=len(race.scored),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, nargs="+", default=RUNS)
    parser.add_argument("--draws", type=int, default=2, help="sets of 80 for each trial; of larger sets one")
    options = parser.parse_args()
    started = perf_counter()
    trials = [trial for run in options.runs for trial in pairs_of(run)]
    print(f"{len(trials)} trials, at most {ALPHA:.0%} wrong in each direction, blocks of {BLOCK}\n")
    print("| speakers | utterances | budget | trials over it | rule | saved | wrongly over | wrongly under |")
    print("|---|---|---|---|---|---|---|---|")
    for name, each in SPEAKERS.items():
        for size in SIZES:
            table = replay(trials, size, each, options.draws if size == SIZES[0] else 1)
            for (budget, rule), found in table.items():
                print(row(f"{name} | {size} | {budget}", rule, found), flush=True)
    print(f"\n{perf_counter() - started:.0f} s")


def pairs_of(run: Path) -> Iterator[list[Pair]]:
    """Of every trial but the original's that has a WER: its errors beside the original's."""
    original, *trials = StudyStore(run / "study.db").trials()
    if original.accuracy is None:
        raise ValueError(f"{run}: the original has no WER")
    known = {utterance.id: utterance for utterance in original.accuracy.utterances}
    for trial in trials:
        if trial.accuracy:
            yield [(utterance, known[utterance.id]) for utterance in trial.accuracy.utterances]


def replay(trials: Sequence[Sequence[Pair]], size: int, each: int, draws: int) -> dict[tuple[str, str], list[Result]]:
    """By budget and rule, the results of all trials, each on sets of its own."""
    rng = random.Random(0)
    found: dict[tuple[str, str], list[Result]] = {}
    for pairs in [trial for _ in range(draws) for trial in trials]:
        drawn = draw(speakers_of(pairs, each), size, rng)
        blocks = dealt([candidate for candidate, _ in drawn], BLOCK, rng)
        baseline = {original.id: original for _, original in drawn}
        for budget in BUDGETS:
            race = Race(
                scored=[utterance for block in blocks for utterance in block],
                ends=np.cumsum([len(block) for block in blocks[:-1]]).tolist(),
                baseline=baseline,
                limit=WerBudget.parse(budget).limit(pooled(list(baseline.values()))),
            )
            for rule, result in results(race).items():
                found.setdefault((budget, rule), []).append(result)
    return dict(sorted(found.items(), key=lambda item: BUDGETS.index(item[0][0])))


def speakers_of(pairs: Sequence[Pair], each: int) -> list[list[Pair]]:
    """So many utterances for each speaker, alike in the original's errors per word."""
    ordered = sorted(pairs, key=lambda pair: pair[1].errors / max(pair[1].words, 1))
    return [ordered[first : first + each] for first in range(0, len(ordered), each)]


def draw(speakers: Sequence[Sequence[Pair]], size: int, rng: random.Random) -> list[Pair]:
    """A set of `size` utterances, of speakers drawn with replacement."""
    drawn: list[Pair] = []
    number = 0
    while len(drawn) < size:
        number += 1
        for candidate, original in rng.choice(speakers):
            name, speaker = f"{len(drawn)}", f"{number}"
            drawn.append((replace(candidate, id=name, speaker=speaker), replace(original, id=name, speaker=speaker)))
    return drawn[:size]


def pooled(utterances: Sequence[UtteranceErrors]) -> ErrorRate:
    """Errors and words of all of them; no interval is asked for."""
    insertions, deletions, substitutions, words = (
        sum(getattr(one, name) for one in utterances) for name in ("insertions", "deletions", "substitutions", "words")
    )
    return ErrorRate(
        errors=insertions + deletions + substitutions,
        words=words,
        low=0.0,
        high=float("inf"),
        insertions=insertions,
        deletions=deletions,
        substitutions=substitutions,
    )


def row(start: str, rule: str, found: Sequence[Result]) -> str:
    """Of the table."""
    above = [one for one in found if one.is_over]
    within = [one for one in found if not one.is_over]
    return (
        f"| {start} | {len(above) / len(found):.0%} | {rule} | {saved(found):.1%} ({saved(above):.1%}) "
        f"| {share(within, 'over'):.1%} | {share(above, 'under'):.1%} |"
    )


def saved(found: Sequence[Result]) -> float:
    """Of the utterances, those not heard."""
    return 1 - sum(one.heard for one in found) / max(sum(one.utterances for one in found), 1)


def share(found: Sequence[Result], decision: Decision) -> float:
    """Of the results, those decided so."""
    return sum(one.decision == decision for one in found) / max(len(found), 1)


if __name__ == "__main__":
    main()
