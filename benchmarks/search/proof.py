"""How many recipes are judged until the optimum of a small space is proven, and whether the proof is right.

    python benchmarks/search/proof.py --seeds 20 > benchmarks/results/proof.md

Costs are real: tiny.en's on i.MX 8M Plus. Divergences are a stand-in: a sum of steps fitted to the recipes that
`results/third` judged, in which each seed scales every field's steps (by a lognormal factor, SCALED) and adds
interactions between fields, up to INTERACTION x sqrt(one x other), and noise by recipe (lognormal, `--noise`). The
engine is the search's own, with another seed each time; it knows the largest divergence that the budget allows, since
WERs are left out. The optimum is looked up in all recipes of the space.
"""

import argparse
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from shutil import copy
from statistics import median
from time import perf_counter

import numpy as np
import numpy.typing as npt
from scipy.optimize import nnls

from compression.recipe.dimensions import Dimensions
from compression.recipe.order import position
from compression.recipe.recipe import Recipe
from devices.profile import load_profile
from evaluators.accuracy.divergence import Divergence
from evaluators.costs.price import price
from search.engines.archive import Archive, Judged
from search.engines.enumeration import Enumeration
from search.engines.evolution import RANGE, Evolution
from search.engines.exclusion import Comparisons, compare
from search.engines.optuna_engine import OptunaEngine
from search.engines.proof import Proof
from search.records.run_records import load_facts
from search.records.study_store import StudyStore
from search.space.genes import Value
from search.space.space import Space, runtime_violation

RUN = Path("results/third")
PROFILE = load_profile("imx8mplus")
TARGET = 0.1 / 3
"""`+10%` where errors rise by three times the divergence, as `search.certainty` begins."""
SCALED, INTERACTION, NOISE = 0.3, 0.3, 0.01
BITS = (16, 8, 4)
SMALL: dict[str, tuple[Value, ...]] = {
    "embedding_bits": BITS,
    "convolution_bits": (16, 8),
    "encoder.attention_bits": BITS,
    "encoder.ffn_bits": BITS,
    "decoder.attention_bits": BITS,
    "decoder.ffn_bits": BITS,
    "group_size": (16,),
    "symmetric": (False,),
    "rounding": ("calibrated",),
}
MIDDLE: dict[str, tuple[Value, ...]] = SMALL | {"vocabulary": (0, 40960, 32768), "window_s": (30.0, 15.0)}
LARGE: dict[str, tuple[Value, ...]] = SMALL | {
    "convolution_bits": (16,),
    "encoder.0.ffn_channels": (1536, 1376, 1216, 1088),
    "encoder.1.ffn_channels": (1536, 1376, 1216, 1088),
}


SPACES = {"small": SMALL, "middle": MIDDLE, "large": LARGE}
HEAD = """# The optimum of a small space, proven

`python benchmarks/search/proof.py --seeds {seeds}`: what is done is in its docstring. The fitted sum is off by
{spread:.1%} (standard deviation of the logarithm) on the recipes that it was fitted to.

judged: recipes until the proof, in brackets their share of the space. found: those until the optimum was judged; what
comes after is the proof. contradicted: comparisons, of judged recipes and of all, in which the more compressed recipe
diverges less by more than 5 %.

| space | recipes | found, median | judged, median | judged, most | proof right | contradicted | of all | seconds |
|---|---|---|---|---|---|---|---|---|"""

Floats = npt.NDArray[np.float64]


class Fitted:
    """Divergence as a sum of one step for each field's value beyond its first, by non-negative least squares.

    Of relative errors, and of what diverges little enough to matter, as the engine's own model.
    """

    def __init__(self, store: StudyStore) -> None:
        judged = [t for t in store.trials() if t.divergence and 0 < t.divergence.mean <= RANGE * TARGET]
        amounts = [position(trial.recipe)[1] for trial in judged]
        found = np.array([trial.divergence.mean for trial in judged if trial.divergence])
        self._levels = [sorted(set(column), reverse=True)[1:] for column in zip(*amounts, strict=True)]
        rows = np.array([np.concatenate(self._passed(amount)) for amount in amounts], float)
        steps, _ = nnls(rows / found[:, None], np.ones(len(found)), maxiter=20 * rows.shape[1])
        self.spread = float(np.std(np.log(rows @ steps / found)))
        self._steps = np.split(steps, np.cumsum([len(levels) for levels in self._levels])[:-1])

    def parts(self, recipe: Recipe) -> Floats:
        """By field, what its value adds, nats a token."""
        passed = self._passed(position(recipe)[1])
        return np.array([steps[beyond].sum() for steps, beyond in zip(self._steps, passed, strict=True)])

    def _passed(self, amounts: tuple[float, ...]) -> list[npt.NDArray[np.bool_]]:
        """By field, which steps its value is beyond."""
        return [np.array(levels) >= amount for levels, amount in zip(self._levels, amounts, strict=True)]


class Prices:
    """tiny.en's costs, of a space's recipes: a pricer."""

    def __init__(self, dimensions: Dimensions, choices: Mapping[str, tuple[Value, ...]]) -> None:
        original = Recipe.original(dimensions, stored_bits=16)
        self.space = Space(
            original=original,
            dimensions=dimensions,
            choices=choices,
            importance={},
            layer_importance={},
            channel_block=PROFILE.runtime.channel_multiple,
            vocabulary_language="en",
        )
        self._original = self._costs(original)
        self.everything = Enumeration(self.space, self)
        self.recipes = [self.space.decode(self.everything.genes(place)) for place in range(len(self.everything))]

    def _costs(self, recipe: Recipe) -> Floats:
        costs = price(self.space.dimensions, recipe, PROFILE, audio_s=10.0, tokens=30)
        return np.array([costs.size_bytes, costs.flops])

    def objective(self, recipe: Recipe) -> float:
        return float((self._costs(recipe) / self._original).mean())

    def rejection(self, recipe: Recipe) -> str | None:
        return runtime_violation(recipe, PROFILE.runtime, original=self.space.original)


def divergences(parts: Floats, seed: int, noise: float) -> list[Divergence]:
    """Of the recipes with these parts, (recipes, fields), in the world of a seed."""
    rng = np.random.default_rng(seed)
    scaled = parts * rng.lognormal(0.0, SCALED, parts.shape[1])
    interactions = np.triu(rng.uniform(0, INTERACTION, (parts.shape[1],) * 2), 1)
    together = np.einsum("ri,ij,rj->r", np.sqrt(scaled), interactions, np.sqrt(scaled), optimize=True)
    found = (scaled.sum(1) + together) * rng.lognormal(0.0, noise, len(parts))
    return [Divergence(nats=(mean,), tokens=(1,)) for mean in found.tolist()]


@dataclass(frozen=True, kw_only=True)
class Found:
    """Of one seed. `recipes`: of the space; `judged`: until the proof; `first`: until the optimum was found."""

    recipes: int
    judged: int
    first: int
    is_right: bool
    comparisons: Comparisons
    every_comparison: Comparisons
    seconds: float


def prove(prices: Prices, truth: list[Divergence], seed: int, folder: Path) -> Found:
    """One search, until its end."""
    space, everything = prices.space, prices.everything
    archive, started = Archive(), perf_counter()

    def bound() -> float:
        return min((m.objective for m in archive.front if m.divergence.mean <= TARGET), default=float("inf"))

    proof = Proof(space, lambda: everything, archive, None, target=lambda: TARGET, bound=bound, seed=seed)
    sampler = OptunaEngine(StudyStore(folder / f"{seed}.db"), space, sampler="random", seed=seed)
    engine = Evolution(sampler, space, archive, prices, target=lambda: TARGET, seed=seed, proof=proof)
    bounds, places = [], []
    while proposal := engine.ask():
        recipe_id = space.decode(proposal.genes).id
        place = everything.place(recipe_id)
        objective, divergence = float(everything.objective[place]), truth[place]
        archive.add(Judged(recipe_id=recipe_id, genes=proposal.genes, objective=objective, divergence=divergence))
        places.append(place)
        bounds.append(bound())
    seconds, pairs = perf_counter() - started, list(zip(prices.recipes, truth, strict=True))
    within = [divergence.mean <= TARGET for divergence in truth]
    return Found(
        recipes=len(everything),
        judged=len(places),
        first=bounds.index(bounds[-1]) + 1,
        is_right=proof.holds and bounds[-1] == everything.objective[within].min(),
        comparisons=compare([pairs[place] for place in places], space),
        every_comparison=compare(pairs, space),
        seconds=seconds,
    )


def row(name: str, found: list[Found]) -> str:
    recipes, judged = found[0].recipes, sorted(one.judged for one in found)
    shares = [f"{100 * count / recipes:.1f} %" for count in (median(judged), judged[-1])]
    made, against = (sum(getattr(f.comparisons, what) for f in found) for what in ("made", "contradictions"))
    all_made, all_against = (sum(getattr(f.every_comparison, w) for f in found) for w in ("made", "contradictions"))
    return (
        f"| {name} | {recipes:,} | {median(one.first for one in found):.0f} | {median(judged):.0f} ({shares[0]}) | "
        f"{judged[-1]} ({shares[1]}) | {sum(one.is_right for one in found)} of {len(found)} | "
        f"{against:,} of {made:,} | {all_against:,} of {all_made:,} | {median(one.seconds for one in found):.1f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--noise", type=float, default=NOISE)
    parser.add_argument("--only", choices=SPACES, action="append")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        copy(RUN / "study.db", folder / "run.db")
        store = StudyStore(folder / "run.db")
        dimensions, fitted = load_facts(store).dimensions, Fitted(store)
        print(HEAD.format(spread=fitted.spread, seeds=options.seeds))
        for space in options.only or SPACES:
            (folder / space).mkdir()
            prices = Prices(dimensions, SPACES[space])
            parts = np.array([fitted.parts(recipe) for recipe in prices.recipes])
            found = [
                prove(prices, divergences(parts, seed, options.noise), seed, folder / space)
                for seed in range(options.seeds)
            ]
            print(row(space, found), flush=True)


if __name__ == "__main__":
    main()
