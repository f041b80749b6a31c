"""A model of a search: what recipes of a finished run's space cost, how they diverge and what they get wrong.

Costs are exact. Divergence is fitted to all that the run judged: the engine's own additive model, times the exponential
of a Gaussian process over the genes (squared exponential, length LENGTH steps) on what that leaves, times the
exponential of a sum over pairs of genes, drawn once, as large as what the first two miss of recipes held out. A value
of a gene that no recipe of the run has costs as much as the dearest that one has; genes younger than the run are left
out. Errors are drawn: k x divergence is the mean rise, k as measured on speech of other kinds (`slope.py`), each recipe
within SCATTER of it (`search.certainty`); in every utterance some errors go and others come, as many as in the run; the
original is lucky or unlucky by LUCK_SD, once a seed. There is one kind of speech: what is heard is what is asked for.
All draws follow from recipe and seed.
"""

import random
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import sha256
from math import exp
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.stats import spearmanr

from compression.recipe.recipe import Recipe
from devices.profile import load_profile
from evaluators.accuracy.blocks import dealt
from evaluators.accuracy.divergence import Divergence
from evaluators.accuracy.error_rate import ErrorRate
from search.certainty import SCATTER, SLOPE
from search.configuration.knobs import ScreeningKnobs
from search.engines.additive_model import AdditiveModel
from search.limits.budget import WerBudget, WerLimit
from search.pricing import rejection, trial_costs
from search.records.folder import RunFolder
from search.records.run_records import load_facts
from search.records.study_store import StudyStore
from search.space.space import PRESETS, Genes, Space, with_original
from search.trial import TrialCosts, UtteranceErrors

MOST = 0.3
"""Nats a token: what diverges more is beyond the engine's own range, and is not fitted to."""
NEAR = (0.01, 0.1)
"""Nats a token: a third to three times what the budget allows, where the sizes of residuals are taken."""
LENGTH, NOISE = 2.0, 0.1
"""Of the Gaussian process, the best of nine pairs on recipes held out."""
FOLDS = 5
CLIP_SPREAD = 0.25
LUCK_SD = 0.05
"""A guess, as in `search.certainty`, where it is twice that."""
BLOCK = 20
FEWEST = 1e-6
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Fit:
    """How well the model predicts recipes held out, in all and where they are near: logarithmic error, rank."""

    recipes: int
    near: int
    log_sd: float
    log_sd_near: float
    rank: float
    rank_near: float


class World:
    """One model, for one seed of luck and errors; `seeded` gives the others without fitting it again."""

    def __init__(self, run: Path, *, budget: str = "+10%") -> None:
        store, config = StudyStore(run / "study.db"), RunFolder(run).config()
        facts, trials = load_facts(store), store.trials()
        self._config, self._dimensions = config, facts.dimensions
        self.facts, self._profile = facts, load_profile(config.device)
        self.original, self._limits = trials[0].recipe, config.cost_limits(self._profile.ram_available_mb)
        self._original_costs, runtime = trials[0].costs, self._profile.runtime
        preset = PRESETS[config.space](facts.dimensions, runtime, self.original.embedding_bits)
        space = Space(
            original=self.original,
            dimensions=facts.dimensions,
            choices=with_original(preset, self.original, facts.dimensions),
            importance={},
            layer_importance={},
            channel_block=runtime.channel_multiple,
            vocabulary_language=next(t.recipe.vocabulary_language for t in trials if t.recipe.vocabulary),
        )
        self.space = _of_genes(space, run)
        whole = trials[0].divergence
        if whole is None or trials[0].accuracy is None:
            raise ValueError(f"{run}: the original has no divergence or no WER")
        clips = ScreeningKnobs().judged_clips
        known = [t for t in trials[1:] if t.divergence and t.divergence.clips >= clips and t.divergence.mean > 0]
        self._tokens = whole.tokens
        self._genes = [self._encoded(t.recipe) for t in known]
        self._found = np.array([t.divergence.of_first(clips).mean for t in known if t.divergence])
        self._model = self._fitted(np.flatnonzero(self._found <= MOST))
        scored = [t for t in trials[1:] if t.state == "complete" and t.accuracy and t.divergence]
        utterances = trials[0].accuracy.utterances
        self._read = utterances
        rate = trials[0].accuracy.rate
        self.limit: WerLimit = WerBudget.parse(budget).limit(rate)
        self.allowed = float(WerBudget.parse(budget).value)
        self.slope = SLOPE
        mine = {u.id: u.errors for u in utterances}
        gone = [sum(max(mine[u.id] - u.errors, 0) for u in t.accuracy.utterances) for t in scored if t.accuracy]
        self.churn = float(np.mean(gone)) / rate.errors
        self._priced: tuple[Recipe, TrialCosts] | None = None
        self._means: dict[tuple[int, ...], float] = {}
        _ = self._drawn, self._middle
        self._take(0)

    def seeded(self, seed: int) -> "World":
        """The same with other errors and other luck, heard in another order."""
        other = copy(self)
        other._take(seed)
        return other

    def _take(self, seed: int) -> None:
        self._seed = seed
        self._utterances = [u for block in dealt(list(self._read), BLOCK, random.Random(seed)) for u in block]
        self.luck = float(np.random.default_rng(seed).normal(0, LUCK_SD))

    @property
    def utterances(self) -> list[UtteranceErrors]:
        """The original's errors, in the order heard."""
        return self._utterances

    # what is exact

    def costs(self, recipe: Recipe) -> TrialCosts:
        if self._priced is None or self._priced[0] is not recipe:
            self._priced = recipe, trial_costs(recipe, self._dimensions, self._profile, self._config)
        return self._priced[1]

    def objective(self, recipe: Recipe) -> float:
        return self._config.parsed_objective.value(self.costs(recipe), self._original_costs)

    def violations(self, recipe: Recipe) -> dict[str, float]:
        return self._limits.violations(self.costs(recipe))

    def rejection(self, recipe: Recipe) -> str | None:
        return rejection(recipe, self.violations(recipe), self._profile.runtime, original=self.original)

    # what is modelled

    def mean_divergence(self, recipe: Recipe) -> float:
        """Nats a token; 0 for the original."""
        return 0.0 if recipe == self.original else self._of_key(self._key(self._encoded(recipe)))

    def _of_key(self, key: tuple[int, ...]) -> float:
        if key not in self._means:
            size, (mean, spread) = self._drawn[2], self._middle
            drawn = (self._interaction(key) - mean) / spread
            self._means[key] = self._model(self._row_of(key)) * exp(size * float(np.clip(drawn, -2, 2)))
        return self._means[key]

    def divergence(self, recipe: Recipe) -> Divergence:
        """On all clips."""
        mean, rng = self.mean_divergence(recipe), self._rng("clips", recipe.id)
        shares = np.exp(rng.normal(0, CLIP_SPREAD, len(self._tokens))) * np.array(self._tokens)
        nats = shares / shares.sum() * mean * sum(self._tokens)
        return Divergence(nats=tuple(map(float, nats)), tokens=self._tokens)

    def expected_rise(self, recipe: Recipe) -> float:
        """Without what is the recipe's own."""
        return self.slope * self.mean_divergence(recipe)

    def true_rise(self, recipe: Recipe) -> float:
        """What speech without end would show."""
        own = float(np.clip(self._rng("own", recipe.id).normal(), -2, 2))
        return self.expected_rise(recipe) * (1 + SCATTER * own)

    def errors(self, recipe: Recipe) -> list[UtteranceErrors]:
        """Of each utterance, in the order heard."""
        if recipe == self.original:
            return list(self._utterances)
        rng, rise = self._rng("errors", recipe.id), self.true_rise(recipe)
        before = np.array([u.errors for u in self._utterances], float)
        words = np.array([u.words for u in self._utterances], float)
        wer = before.sum() / words.sum()
        expected = (before + words * wer) / 2  # half by the utterance, half by its length
        gone = rng.binomial(before.astype(int), self.churn)
        total = max((1 + rise) / (1 + self.luck) - 1 + self.churn, 0.0)
        come = np.minimum(rng.poisson(expected * total), words)
        return [
            UtteranceErrors(
                id=u.id, insertions=0, deletions=0, substitutions=int(b - g + c), words=u.words, speaker=u.speaker
            )
            for u, b, g, c in zip(self._utterances, before, gone, come, strict=True)
        ]

    # how it is fitted

    @cached_property
    def held_out(self) -> Fit:
        """Of the model without its drawn part, which is as large as the logarithmic error where recipes are near."""
        near = np.flatnonzero(self._found <= MOST)
        folds = np.random.default_rng(0).integers(FOLDS, size=len(near))
        predicted = np.zeros(len(near))
        for fold in range(FOLDS):
            model = self._fitted(near[folds != fold])
            predicted[folds == fold] = [model(self._row(self._genes[i])) for i in near[folds == fold]]
        found = self._found[near]
        error, close = np.log(predicted / found), (found >= NEAR[0]) & (found <= NEAR[1])
        return Fit(
            recipes=len(near),
            near=int(close.sum()),
            log_sd=spread_of(error),
            log_sd_near=spread_of(error[close]),
            rank=float(spearmanr(predicted, found).statistic),
            rank_near=float(spearmanr(predicted[close], found[close]).statistic),
        )

    def _fitted(self, chosen: npt.NDArray[np.int64]) -> Callable[[Floats], float]:
        """From a row of steps to a divergence, without the drawn part."""
        choices = {name: values for name, values in self.space.choices.items() if len(values) > 1}
        model = AdditiveModel(choices)
        beyond = np.flatnonzero(self._found > MOST)  # of which only steps that occur nowhere else are learned
        learned = np.concatenate([chosen, beyond])
        model.fit([(self._genes[i], float(self._found[i])) for i in learned], MOST)
        rows = np.array([self._row(self._genes[i]) for i in chosen])
        steps = model._steps.copy()
        unseen = ~np.array([self._row(self._genes[i]) for i in learned]).astype(bool).any(0)
        steps[unseen] = steps.max()
        left = np.log(self._found[chosen] / np.maximum(rows @ steps, FEWEST))
        squares = (rows**2).sum(1)
        kernel = np.exp(-(squares[:, None] + squares - 2 * rows @ rows.T) / (2 * LENGTH**2))
        weights = np.linalg.solve(kernel + NOISE * np.eye(len(rows)), left)

        def predict(row: Floats) -> float:
            near = np.exp(-(squares + row @ row - 2 * rows @ row) / (2 * LENGTH**2))
            return float(max(row @ steps, FEWEST) * np.exp(near @ weights))

        return predict

    @cached_property
    def _drawn(self) -> tuple[Floats, Floats, float]:
        """Values of genes and weights of pairs, and the size of what they make: the same for all seeds."""
        rng = np.random.default_rng(1)
        names = [name for name, values in self.space.choices.items() if len(values) > 1]
        tables = rng.normal(size=(len(names), max(map(len, self.space.choices.values()))))
        pairs = rng.normal(size=(len(names), len(names)))
        return tables, np.triu(pairs, 1), self.held_out.log_sd_near

    def _interaction(self, key: tuple[int, ...]) -> float:
        """Of standard deviation 1 over the recipes of the space: a sum over pairs of genes."""
        tables, pairs, _ = self._drawn
        values = tables[np.arange(len(key)), key]
        return float(values @ pairs @ values) / np.sqrt((pairs != 0).sum())

    @cached_property
    def _middle(self) -> tuple[float, float]:
        """Mean and spread of the drawn part over the run's recipes that are near; on the whole these stay."""
        pairs = zip(self._genes, self._found, strict=True)
        found = [self._interaction(self._key(genes)) for genes, d in pairs if NEAR[0] <= d <= NEAR[1]]
        return float(np.mean(found)), float(np.std(found))

    def _encoded(self, recipe: Recipe) -> Genes:
        genes = self.space.encode(recipe)
        if genes is None:
            raise ValueError(f"{recipe.id}: not in the space")
        return genes

    def _key(self, genes: Genes) -> tuple[int, ...]:
        return tuple(values.index(genes[name]) for name, values in self.space.choices.items() if len(values) > 1)

    def _row(self, genes: Genes) -> Floats:
        return self._row_of(self._key(genes))

    def _row_of(self, key: tuple[int, ...]) -> Floats:
        lengths = [len(values) for values in self.space.choices.values() if len(values) > 1]
        return np.concatenate([np.arange(1, n) <= k for n, k in zip(lengths, key, strict=True)]).astype(float)

    def _rng(self, what: str, recipe_id: str) -> np.random.Generator:
        digest = sha256(f"{what}/{'' if what == 'own' else self._seed}/{recipe_id}".encode()).digest()
        return np.random.default_rng(int.from_bytes(digest[:8], "big"))


def _of_genes(space: Space, run: Path) -> Space:
    """The space with the genes that the run had: others are younger."""
    trials = StudyStore(run / "study.db").study.get_trials(deepcopy=False)
    names = {name for trial in trials for name in trial.params}
    return replace(space, choices={name: values for name, values in space.choices.items() if name in names})


def spread_of(errors: Floats) -> float:
    """Half of what lies between the 16th and the 84th of a hundred: a standard deviation, but for a few outliers.

    Held out, what alone has a value of a gene is an outlier.
    """
    low, high = np.percentile(errors, [16, 84])
    return float(high - low) / 2


def rate_of(errors: list[UtteranceErrors]) -> ErrorRate:
    """Pooled, without an interval."""
    return ErrorRate(
        errors=sum(e.errors for e in errors),
        words=sum(e.words for e in errors),
        low=0.0,
        high=float("inf"),
        insertions=0,
        deletions=0,
        substitutions=sum(e.errors for e in errors),
    )
