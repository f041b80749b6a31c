"""Judging recipes by divergence first: only what nothing cheaper beats comes to have a WER."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import log
from statistics import fmean

from compression.recipe.recipe import Recipe
from evaluators.accuracy.divergence import Divergence
from search.configuration.knobs import ScreeningKnobs
from search.engines.archive import Archive, Judged
from search.engines.base import Proposal
from search.records.ledger import Ledger
from search.run.measuring import Enough
from search.space.space import Space
from search.trial import Trial

HOPELESS = 4.0
"""A recipe that diverges so many times as much as the budget allows is not scored."""
HARMLESS = 1 / 8
"""What diverges less than this share of what the budget allows is taken for the original: its WER says nothing new."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Candidate:
    """A recipe on the front of cost and divergence that has no WER yet."""

    proposal: Proposal
    recipe: Recipe
    judged: Judged
    seconds: float


class Screening:
    """Decides which recipes are worth their transcripts, and in which order."""

    def __init__(
        self,
        archive: Archive,
        ledger: Ledger,
        space: Space,
        *,
        confidence: float,
        knobs: ScreeningKnobs | None = None,
    ) -> None:
        self.archive = archive
        self._ledger = ledger
        self._space = space
        self._confidence = confidence
        self._knobs = knobs or ScreeningKnobs()
        self._waiting: dict[str, Candidate] = {}
        self._scoring: dict[str, Candidate] = {}
        self._scores_front = False
        self._before = max(1, len(ledger.trials))
        for trial in ledger.trials:
            self.know(trial.recipe, trial.objective, trial.divergence)

    def know(self, recipe: Recipe, objective: float, divergence: Divergence | None) -> None:
        """Take up what has a trial already: judged, where the space has it, or not to be proposed again."""
        if divergence is None:
            self.archive.exclude(recipe.id)
        genes = self._space.encode(recipe) if divergence and recipe.recovery is None else None
        if genes is not None and divergence:
            self.archive.add(Judged(recipe_id=recipe.id, genes=genes, objective=objective, divergence=divergence))

    def target(self) -> float:
        """The largest divergence that keeps the budget with the asked probability, as far as is known."""
        certainty = self._ledger.certainty
        return certainty.largest_divergence(self._confidence) if certainty else 0.0

    def begun(self, recipe: Recipe, objective: float) -> Enough:
        """A recipe is about to be judged; when its divergence is known well enough."""
        self.archive.expect(recipe.id)
        knobs = self._knobs
        return Enough(
            clips=knobs.judged_clips,
            first=knobs.first_clips,
            margin=knobs.margin,
            better=self.archive.least_within(objective, knobs.judged_clips),
        )

    def finished(self, trial: Trial) -> None:
        """A recipe has its trial: scored, or not to be."""
        if self._scoring.pop(trial.recipe.id, None) is None:
            self.know(trial.recipe, trial.objective, trial.divergence)

    def judge(self, candidate: Candidate) -> str | None:
        """Take a recipe up; the reason why it need not be scored, or None: then it waits for its WER."""
        judged = candidate.judged
        better = self.archive.better(judged.objective, judged.divergence)
        self.archive.add(judged)
        if better:
            return _reason(better, judged.divergence)
        self._waiting[candidate.recipe.id] = candidate
        return None

    def beaten(self) -> list[tuple[Candidate, str]]:
        """Those that wait no longer, since better ones came; with the reason."""
        found = []
        for recipe_id, candidate in list(self._waiting.items()):
            judged = candidate.judged
            if judged not in self.archive.front:
                better = self.archive.better(judged.objective, judged.divergence)
                found.append((self._waiting.pop(recipe_id), _reason(better, judged.divergence) if better else "beaten"))
        return found

    def next_to_score(self) -> Candidate | None:
        """What is to be scored now, while proposals still come; None: judge another recipe.

        The recipe that would be the pick, and in turn with it one in the largest gap of the front.
        """
        if len(self.archive.judged) < self._knobs.least_judged or self._share_of_scoring > self._knobs.scored_share:
            return None
        order = (self._in_gap, self._would_be_pick) if self._scores_front else (self._would_be_pick, self._in_gap)
        candidate = next((found for choose in order if (found := choose())), None)
        self._scores_front = not self._scores_front
        return self._taken(candidate)

    def last_to_score(self, scored: int) -> Candidate | None:
        """The same when no more proposals come, after so many: only what would be the pick."""
        return self._taken(self._would_be_pick() if scored < self._knobs.scored_at_end else None)

    def _taken(self, candidate: Candidate | None) -> Candidate | None:
        """The candidate, from now on being scored."""
        if candidate:
            self._scoring[candidate.recipe.id] = self._waiting.pop(candidate.recipe.id)
        return candidate

    def rest(self) -> list[Candidate]:
        """All that still wait, which end without a WER."""
        rest = list(self._waiting.values())
        self._waiting.clear()
        return rest

    def bound(self) -> float:
        """The objective of the cheapest recipe that is likely within the budget, scored or waiting for it."""
        return min([self._cheapest_known(), *(c.judged.objective for c in self._likely(self._waiting))])

    def _cheapest_known(self) -> float:
        """The same of those that are scored, or being scored."""
        return min([self.cheapest_within(), *(c.judged.objective for c in self._likely(self._scoring))])

    def _likely(self, candidates: Mapping[str, Candidate]) -> list[Candidate]:
        return [c for c in candidates.values() if self._probability(c) >= self._confidence]

    @property
    def _share_of_scoring(self) -> float:
        """Of the time of this session's trials, that of those which were scored; one that is being scored takes as
        long as they did.
        """
        trials = self._ledger.trials[self._before :]
        scored_s = [trial.seconds for trial in trials if trial.accuracy]
        scoring_s = sum(scored_s) + len(self._scoring) * (fmean(scored_s) if scored_s else 0.0)
        judging_s = sum(trial.seconds for trial in trials if not trial.accuracy)
        all_s = scoring_s + judging_s + sum(c.seconds for c in self._waiting.values())
        return scoring_s / all_s if all_s else 0.0

    def _would_be_pick(self) -> Candidate | None:
        """The cheapest that is expected within the budget, if it is cheaper than all that are known to be."""
        cheapest = min(self._likely(self._waiting), key=lambda c: c.judged.objective, default=None)
        return cheapest if cheapest and cheapest.judged.objective < self._cheapest_known() else None

    def cheapest_within(self) -> float:
        """The objective of the cheapest scored recipe that is likely within the budget; infinite if none is."""
        certainty = self._ledger.certainty
        within = [
            trial.objective
            for trial in self._ledger.front
            if certainty
            and (estimate := certainty.scored(trial.recipe.id))
            and estimate.probability >= self._confidence
        ]
        return min(within, default=float("inf"))

    def _in_gap(self) -> Candidate | None:
        """The one whose divergence is furthest from all that were scored, among those that are worth it."""
        target = self.target()
        scored = [t.divergence.mean for t in self._ledger.trials if t.accuracy and t.divergence]
        scored += [candidate.judged.divergence.mean for candidate in self._scoring.values()]

        def gap(candidate: Candidate) -> float:
            found = candidate.judged.divergence.mean
            return min(abs(log(found / max(other, HARMLESS * target))) for other in scored)

        low, high = HARMLESS * target, HOPELESS * target
        worth = [c for c in self._waiting.values() if low <= c.judged.divergence.mean <= high and low]
        widest = max(worth, key=gap, default=None)
        return widest if widest and gap(widest) > self._knobs.gap else None

    def _probability(self, candidate: Candidate) -> float:
        certainty = self._ledger.certainty
        return certainty.expected(candidate.judged.divergence.mean).probability if certainty else 0.0


def _reason(better: Judged, divergence: Divergence) -> str:
    return (
        f"dominated: recipe {better.recipe_id} costs no more (objective {better.objective:.4f}) and diverges less, "
        f"{better.divergence.of_first(divergence.clips).mean:.4f} against {divergence.mean:.4f} nats a token on "
        f"{divergence.clips} clips"
    )
