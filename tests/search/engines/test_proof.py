"""Enumerated spaces, the rule of exclusion and the proof, against brute force over every pair of recipes."""

from itertools import product
from math import exp

import numpy as np
import pytest

from evaluators.accuracy.divergence import Divergence
from search.engines.archive import Archive, Judged
from search.engines.enumeration import MOST_COUNTED, Enumeration
from search.engines.evolution import Evolution
from search.engines.exclusion import MARGIN, Exclusion, compare, is_surely_over
from search.engines.optuna_engine import OptunaEngine
from search.engines.proof import Proof
from search.limits.group_budget import GROUP
from search.records.study_store import StudyStore
from search.trial import Trial
from tests.search.conftest import _trial
from tests.search.engines.test_evolution import TARGET, World

CHOICES = {
    "encoder.ffn_bits": (16, 8, 4),
    "encoder.0.ffn_bits": (16, 8),
    "decoder.0.heads": (6, 5, 4),
    "embedding_bits": (16, 8),
    "group_size": (32, 64),
    "window_s": (30.0, 20.0),
    "rounding": ("calibrated", "nearest"),
}


@pytest.fixture(scope="module")
def world() -> World:
    return World(CHOICES, rejects=True)


@pytest.fixture(scope="module")
def everything(world: World) -> Enumeration:
    return Enumeration(world.space, world)


def decoded(world: World) -> list:
    """Every combination's recipe, each once."""
    names = list(world.space.choices)
    combinations = (dict(zip(names, values, strict=True)) for values in product(*world.space.choices.values()))
    return list({recipe.id: recipe for recipe in map(world.space.decode, combinations)}.values())


def related(world: World, one, other) -> bool:
    """Whether the other recipe is at least as compressed, in the same window."""
    return one.window_s == other.window_s and world.space.rules_out(one, other)


def trial(number: int, recipe, divergence: float | None, **changes) -> Trial:
    known = None if divergence is None else Divergence(nats=(divergence,), tokens=(1,))
    values = {"state": "stopped", "wer": None, "violations": {}} | changes
    return _trial(number, objective=0.5, recipe=recipe, divergence=known, **values)


def test_each_recipe_is_there_once_at_its_price(world, everything):
    recipes = decoded(world)
    assert len(everything) == len(recipes) < world.space.combinations
    for recipe in recipes:
        place = everything.place(recipe.id)
        assert world.space.decode(everything.genes(place)) == recipe
        assert everything.objective[place] == world.objective(recipe)
        assert everything.is_allowed[place] == (world.rejection(recipe) is None)
    assert everything.place("another") is None


def test_the_order_is_that_of_every_pair(world, everything):
    recipes = decoded(world)
    places = [everything.place(recipe.id) for recipe in recipes]
    pairs = [(one, other) for one in recipes for other in recipes if related(world, one, other)]
    truth = {(everything.place(one.id), everything.place(other.id)) for one, other in pairs}
    for recipe, place in zip(recipes, places, strict=True):
        found = np.flatnonzero(everything.at_least_as_compressed(recipe))
        assert {(place, other) for other in found} == {pair for pair in truth if pair[0] == place}
    by, among = np.array(places[::3]), np.array(places[::2])
    expected = [sum((one, other) in truth for other in among) for one in by]
    assert everything.covered(by, among).tolist() == expected


def test_a_recipe_outside_the_space_is_compared_too(world, everything):
    outside = world.space.decode({"convolution_bits": 8, "embedding_bits": 8})
    assert everything.place(outside.id) is None
    assert not everything.at_least_as_compressed(outside).any()  # all of them have finer convolutions
    finer = world.space.decode({"group_size": 32, "embedding_bits": 8, "rounding": "calibrated", "symmetric": False})
    found = {place for place in range(len(everything)) if everything.at_least_as_compressed(finer)[place]}
    recipes = decoded(world)
    assert found == {everything.place(r.id) for r in recipes if related(world, finer, r)}


def test_what_is_excluded_is_what_every_pair_excludes(world, everything):
    rng, recipes = np.random.default_rng(0), decoded(world)
    chosen = [recipes[n] for n in rng.permutation(len(recipes))[:12]]
    trials = [trial(n, recipe, float(rng.uniform(0, 0.1))) for n, recipe in enumerate(chosen)]
    trials[0] = trial(0, chosen[0], 0.0, wer=0.2, violations={"wer": 0.5})
    trials[1] = trial(1, chosen[1], None, state="failed")
    exclusion = Exclusion(everything)
    for one in trials:
        exclusion.add(one)
    for target in (0.0, 0.03, 0.06, 0.2):
        excluding = [
            t.recipe for t in trials if is_surely_over(t) or (t.divergence and t.divergence.mean > MARGIN * target)
        ]
        expected = {everything.place(r.id) for r in recipes if any(related(world, other, r) for other in excluding)}
        assert set(np.flatnonzero(exclusion.excluded(target))) == expected
    assert set(np.flatnonzero(exclusion.excluded(None))) == {
        everything.place(r.id) for r in recipes if related(world, chosen[0], r)
    }


def test_only_transcripts_that_ended_early_by_the_wer_are_surely_over(world):
    recipe = world.space.original
    assert is_surely_over(trial(1, recipe, 0.1, wer=0.2, violations={"wer": 0.1}))
    assert not is_surely_over(trial(1, recipe, 0.1, wer=0.2, violations={"wer": 0.1, GROUP: 0.2}))
    assert not is_surely_over(trial(1, recipe, 0.1, wer=0.2, violations={"wer": 0.1}, state="complete"))
    assert not is_surely_over(trial(1, recipe, 0.1, violations={"wer": 0.1}))


def test_contradictions_are_those_of_every_pair(world):
    rng, recipes = np.random.default_rng(2), decoded(world)[:60]
    judged = []
    for recipe in recipes:
        clips = int(rng.integers(1, 4))
        judged.append((recipe, Divergence(nats=tuple(rng.uniform(0.01, 0.03, clips)), tokens=(1,) * clips)))
    made = contradictions = 0
    for one, first in judged:
        for other, second in judged:
            if one is not other and related(world, one, other):
                clips = min(first.clips, second.clips)
                made += 1
                contradictions += second.of_first(clips).mean * MARGIN < first.of_first(clips).mean
    found = compare(judged, world.space)
    assert (found.made, found.contradictions) == (made, contradictions)
    assert 0 < contradictions < made
    assert compare([], world.space).made == 0


class Noisy(World):
    """Of each recipe's divergence a share of its own; what falls is not monotone."""

    def __init__(self, *, noise: float = 0.0, falls: bool = False) -> None:
        super().__init__()
        self.noise, self.falls = noise, falls

    def divergence(self, genes) -> Divergence:
        whole = super().divergence(genes)
        recipe = self.space.decode(genes)
        factor = exp(self.noise * np.random.default_rng(int(recipe.id[:12], 16)).uniform(-1, 1))
        if self.falls and genes["embedding_bits"] == 4:
            factor *= 0.1
        return Divergence(nats=tuple(factor * nats for nats in whole.nats), tokens=whole.tokens)


def prove(world: World, folder, *, seed: int = 0) -> tuple[Archive, Proof, float]:
    """A search that ends by its proof, and the objective of its pick."""
    archive = Archive()

    def bound() -> float:
        return min((m.objective for m in archive.front if m.divergence.mean <= TARGET), default=float("inf"))

    everything = Enumeration(world.space, world)
    proof = Proof(world.space, lambda: everything, archive, None, target=lambda: TARGET, bound=bound, seed=seed)
    sampler = OptunaEngine(StudyStore(folder / "study.db"), world.space, sampler="random", seed=seed)
    engine = Evolution(sampler, world.space, archive, world, target=lambda: TARGET, seed=seed, proof=proof)
    while proposal := engine.ask():
        recipe = world.space.decode(proposal.genes)
        assert recipe.id not in archive
        archive.add(
            Judged(
                recipe_id=recipe.id,
                genes=proposal.genes,
                objective=world.objective(recipe),
                divergence=world.divergence(dict(proposal.genes)),
            )
        )
    return archive, proof, bound()


@pytest.mark.parametrize(("seed", "noise"), [(0, 0.0), (1, 0.02)])
def test_the_search_ends_with_the_optimum_proven(tmp_path, seed, noise):
    """Noise of 2 % either way is less than the margin."""
    world = Noisy(noise=noise)
    archive, proof, pick = prove(world, tmp_path, seed=seed)
    names = list(world.space.choices)
    combinations = [dict(zip(names, values, strict=True)) for values in product(*world.space.choices.values())]
    within = [genes for genes in combinations if world.divergence(genes).mean <= TARGET]
    assert pick == min(world.objective(world.space.decode(genes)) for genes in within)
    assert proof.holds
    assert len(archive.judged) < 0.25 * len(combinations)


def test_where_more_compression_brings_accuracy_back_that_is_counted(tmp_path):
    world = Noisy(falls=True)
    archive, _, _ = prove(world, tmp_path)
    found = compare([(world.space.decode(m.genes), m.divergence) for m in archive.judged], world.space)
    assert found.contradictions > 0


def test_a_large_space_is_never_priced(tmp_path):
    def refuse() -> None:
        raise AssertionError("it is priced")

    world = World({f"encoder.{n}.heads": tuple(range(6, 0, -1)) for n in range(2)} | {
        f"decoder.{n}.{name}": tuple(range(6, 0, -1)) for n in range(2) for name in ("heads", "cross_heads")
    } | {"embedding_bits": (16, 8, 4)})  # fmt: skip
    assert world.space.combinations > MOST_COUNTED
    archive = Archive()
    for _ in range(20):
        archive.add(Judged(recipe_id="a", genes={}, objective=1.0, divergence=Divergence(nats=(1.0,), tokens=(1,))))
    proof = Proof(world.space, refuse, archive, None, target=lambda: 1.0, bound=lambda: 1.0, seed=0)
    assert (proof.is_due, proof.holds) == (False, False)
