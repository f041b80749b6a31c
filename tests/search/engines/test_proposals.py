from dataclasses import replace
from types import SimpleNamespace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from compression.recipe.recipe import Recipe
from compression.recipe.recovery_spec import Recovery
from search.engines.local_steps import LocalSteps
from search.engines.proposals import DOWN, HOPELESS, starting_genes
from search.front import front
from search.space.space import Genes, Space
from search.trial import Trial
from tests.search.answers import answer, toy_space
from tests.search.conftest import DIMENSIONS
from tests.search.spaces import make_space

SPACES = {"toy": toy_space(), "coarse": make_space(DIMENSIONS, "coarse"), "fine": make_space(DIMENSIONS, "fine")}


class Tried:
    """A ledger that finds by brute force."""

    def __init__(self, trials: list[Trial]) -> None:
        self.trials = trials
        self.front = front(trials)

    def find(self, recipe: Recipe) -> Trial | None:
        return next((trial for trial in self.trials if trial.recipe == recipe), None)


def untried(space: Space, best: Trial, trials: list[Trial]) -> list[tuple[Genes, Recipe]]:
    """The neighbours that a search goes on to."""
    steps = LocalSteps(SimpleNamespace(**dict.fromkeys(ENGINE, lambda _: None)), space, Tried(trials), None)  # type: ignore[arg-type]
    return list(steps._untried(best, DOWN))


ENGINE = ("enqueue", "begin", "pause", "put_back", "add")


def positions(space: Space, genes) -> list[int]:
    return [values.index(genes[name]) for name, values in space.choices.items()]


def test_the_original_comes_first():
    for space in SPACES.values():
        first, *others = (space.decode(genes) for genes in starting_genes(space))
        assert first == space.original
        assert space.original not in others
        assert len(set(others)) == len(others)


def test_starts_remove_nothing_and_use_every_bit_width():
    for space in (SPACES["coarse"], SPACES["fine"]):
        starts = [space.decode(genes) for genes in starting_genes(space)]
        assert not any(recipe.is_pruned(space.dimensions) for recipe in starts)
        assert all(all(recipe.encoder) and all(recipe.decoder) for recipe in starts)
        assert {bits for recipe in starts for bits in recipe.weight_bits} == {16, 8, 4}
        assert {recipe.window_s for recipe in starts[1:]} == {15.0}
        assert {recipe.scale_bits for recipe in starts if recipe.group_size} == {8}


def test_means_that_come_to_one_recipe_are_one_start():
    space = replace(SPACES["coarse"], choices={"mean_bits": (16, 8, 7.999, 4.001, 4)})
    starts = starting_genes(space)
    assert [genes["mean_bits"] for genes in starts[:2]] == [16, 8]
    assert len({space.decode(genes) for genes in starts}) == len(starts) < 5


def test_a_space_without_bits_or_window_has_one_start():
    space = toy_space({"decoder.heads_removed": (0, 1)})
    assert starting_genes(space) == ({"decoder.heads_removed": 0},)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32), count=st.integers(1, 30), name=st.sampled_from(["toy", "coarse"]))
def test_neighbours_are_one_step_away_new_and_not_hopeless(seed, count, name):
    space, rng = SPACES[name], np.random.default_rng(seed)
    drawn = [space.decode(space.sample(rng)) for _ in range(count)]
    trials = [answer(number, recipe) for number, recipe in enumerate([space.original, *drawn])]
    best = front(trials)[0] if front(trials) else trials[0]
    best_genes = space.encode(best.recipe)
    assert best_genes is not None
    found = untried(space, best, trials)
    for genes, recipe in found:
        steps = np.subtract(positions(space, genes), positions(space, best_genes))
        assert sorted(steps)[-1] == 1
        assert np.count_nonzero(steps) == 1
        assert space.decode(genes) == recipe
        assert recipe not in {trial.recipe for trial in trials}
        for trial in trials:
            if any(over > HOPELESS for over in trial.violations.values()):
                assert not space.rules_out(trial.recipe, recipe)
    # brute force: nothing else may be left out
    one_step = [
        best_genes | {gene: values[values.index(best_genes[gene]) + 1]}
        for gene, values in space.choices.items()
        if best_genes[gene] != values[-1]
    ]
    missing = [genes for genes in one_step if genes not in [dict(genes) for genes, _ in found]]
    for genes in missing:
        recipe = space.decode(genes)
        hopeless = [t.recipe for t in trials if max(t.violations.values()) > HOPELESS]
        assert recipe in {t.recipe for t in trials} or any(space.rules_out(r, recipe) for r in hopeless)


def test_a_recipe_outside_the_space_has_no_neighbours():
    space = SPACES["toy"]
    outside = answer(0, replace(space.original, window_s=17.0))
    assert untried(space, outside, [outside]) == []


def test_a_groups_limit_rules_out_nothing_else():
    """What is one step beyond a trial that is hopelessly over the WER budget is left out, over a group's it is not."""
    space = SPACES["toy"]
    original = answer(0, space.original)
    for name, is_ruled_out in (("wer", True), ("group", False)):
        over = replace(original, violations={"wer": -0.1} | {name: 3 * HOPELESS})
        assert bool(untried(space, over, [over])) != is_ruled_out


def test_a_recovered_best_trial_has_the_neighbours_of_its_recipe_before():
    space = SPACES["toy"]
    best = answer(3, space.original)
    recovery = Recovery(method="distill", weights_sha256="ab" * 32)
    recovered = replace(best, recipe=replace(best.recipe, recovery=recovery))
    assert untried(space, recovered, [best]) == untried(space, best, [best])
    assert space.encode(recovered.recipe) is None
