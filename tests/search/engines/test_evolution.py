"""Evolution and its archive, in a world whose divergence is known."""

from itertools import product

import numpy as np
import pytest

from compression.recipe.recipe import Recipe
from evaluators.accuracy.divergence import Divergence
from search.engines.additive_model import AdditiveModel
from search.engines.archive import Archive, Judged
from search.engines.evolution import Evolution
from search.engines.optuna_engine import OptunaEngine
from search.records.study_store import StudyStore
from search.space.genes import Value
from search.space.space import Space
from tests.search.answers import toy_space

CHOICES: dict[str, tuple[Value, ...]] = {
    "encoder.0.ffn_bits": (16, 8, 4),
    "encoder.1.ffn_bits": (16, 8, 4),
    "decoder.0.ffn_bits": (16, 8, 4),
    "decoder.1.ffn_bits": (16, 8, 4),
    "decoder.0.heads": (6, 5, 4, 3),
    "embedding_bits": (16, 8, 4),
    "convolution_bits": (16, 8),
}
HARM = {"encoder.0.ffn_bits": 0.02, "encoder.1.ffn_bits": 0.004, "embedding_bits": 0.05, "decoder.0.heads": 0.01}
TARGET = 0.06


class World:
    """Cost is the mean of bits and heads; divergence a sum over genes, with some noise by clip."""

    def __init__(self, choices: dict[str, tuple[Value, ...]] = CHOICES, *, rejects: bool = False) -> None:
        self.space: Space = toy_space(choices)
        self.rejects = rejects

    def objective(self, recipe: Recipe) -> float:
        heads = sum(layer.heads for layer in recipe.decoder if layer)
        return (sum(recipe.weight_bits) / len(recipe.weight_bits) + heads / 4) / 19

    def rejection(self, recipe: Recipe) -> str | None:
        return "no" if self.rejects and recipe.embedding_bits == 4 else None

    def divergence(self, genes: dict[str, Value]) -> Divergence:
        steps = {name: values.index(genes[name]) for name, values in self.space.choices.items()}
        mean = sum(HARM.get(name, 0.008) * step**2 / 2 for name, step in steps.items())
        return Divergence(nats=(80 * mean, 120 * mean), tokens=(100, 100))


def evolve(world: World, store: StudyStore, judged: int, *, seed: int = 0) -> Archive:
    archive = Archive()
    sampler = OptunaEngine(store, world.space, sampler="random", seed=seed)
    engine = Evolution(sampler, world.space, archive, world, target=lambda: TARGET, seed=seed)
    for _ in range(judged):
        proposal = engine.ask()
        if proposal is None:
            break
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
    return archive


def best(archive: Archive) -> float:
    return min(member.objective for member in archive.front if member.divergence.mean <= TARGET)


def optimum(world: World) -> float:
    names = list(world.space.choices)
    everything = (dict(zip(names, values, strict=True)) for values in product(*world.space.choices.values()))
    return min(
        world.objective(world.space.decode(genes)) for genes in everything if world.divergence(genes).mean <= TARGET
    )


@pytest.mark.parametrize("seed", range(3))
def test_it_finds_the_optimum_after_a_small_part_of_the_space(tmp_path, seed):
    world = World()
    archive = evolve(world, StudyStore(tmp_path / "study.db"), 120, seed=seed)
    assert best(archive) == pytest.approx(optimum(world))


def test_it_ends_when_everything_is_judged(tmp_path):
    world = World({name: CHOICES[name] for name in ("embedding_bits", "convolution_bits")})
    archive = evolve(world, StudyStore(tmp_path / "study.db"), 50)
    assert len(archive.judged) == 6


def test_what_costs_too_much_is_not_proposed_but_among_the_starting_points(tmp_path):
    world = World(rejects=True)
    archive = evolve(world, StudyStore(tmp_path / "study.db"), 40)
    starts = 8
    assert all(judged.genes["embedding_bits"] != 4 for judged in archive.judged[starts:])


def test_proposals_are_running_trials_of_the_study_and_come_again(tmp_path):
    world, file = World(), tmp_path / "study.db"
    engine = OptunaEngine(StudyStore(file), world.space, sampler="random", seed=0)
    first = engine.propose(world.space.default_genes)
    second = engine.propose({**world.space.default_genes, "embedding_bits": 4})
    assert [first.number, second.number] == [0, 1]
    engine.begin(second, world.space.decode(second.genes))
    engine.pause(second)
    again = OptunaEngine(StudyStore(file), world.space, sampler="random", seed=0)
    assert again.is_waiting
    found = [again.ask(), again.ask()]
    assert [(p.number, dict(p.genes), p.deaths) for p in found] == [
        (p.number, dict(p.genes), 0) for p in (first, second)
    ]
    assert not again.is_waiting


def test_genes_that_are_known_are_not_enqueued_again(tmp_path):
    world = World()
    engine = OptunaEngine(StudyStore(tmp_path / "study.db"), world.space, sampler="random", seed=0)
    for _ in range(2):
        engine.enqueue(world.space.default_genes)
    assert engine.is_waiting
    engine.ask()
    assert not engine.is_waiting
    engine.enqueue(world.space.default_genes)
    assert not engine.is_waiting


def judged(name: str, objective: float, *nats: float) -> Judged:
    return Judged(
        recipe_id=name, genes={}, objective=objective, divergence=Divergence(nats=nats, tokens=(1,) * len(nats))
    )


def test_the_front_is_what_comparing_every_pair_leaves():
    rng = np.random.default_rng(1)
    everything = [judged(str(n), round(float(rng.random()), 1), float(rng.integers(1, 9))) for n in range(60)]
    archive = Archive()
    for member in everything:
        archive.add(member)

    def beats(one: Judged, other: Judged) -> bool:
        return one.objective <= other.objective and one.divergence.mean <= other.divergence.mean

    expected = {
        (m.objective, m.divergence.mean)
        for m in everything
        if not any(
            beats(o, m) and (o.objective, o.divergence.mean) != (m.objective, m.divergence.mean) for o in everything
        )
    }
    assert {(m.objective, m.divergence.mean) for m in archive.front} == expected
    assert [m.objective for m in archive.front] == sorted(m.objective for m in archive.front)


def test_a_recipe_that_was_heard_in_part_is_compared_on_that_part():
    archive = Archive()
    archive.add(judged("whole", 0.5, 1.0, 5.0))
    assert archive.better(0.6, Divergence(nats=(2.0,), tokens=(1,)))
    assert not archive.better(0.6, Divergence(nats=(0.9,), tokens=(1,)))
    assert not archive.better(0.4, Divergence(nats=(2.0,), tokens=(1,)))
    assert not archive.better(0.6, Divergence(nats=(2.0,), tokens=(1,)), margin=3.0)
    archive.add(judged("part", 0.7, 2.0))
    assert [value for _, value in archive.members()] == [3.0, 6.0]


def test_the_model_finds_the_steps_of_a_sum():
    choices = {name: values for name, values in CHOICES.items() if len(values) > 1}
    rng, model, world = np.random.default_rng(0), AdditiveModel(choices), World()

    def drawn() -> dict[str, Value]:
        return {name: values[int(rng.integers(len(values)))] for name, values in choices.items()}

    pairs = [(genes, world.divergence(genes).mean) for genes in (drawn() for _ in range(80))]
    model.fit([pair for pair in pairs if pair[1] > 0], most=10.0)
    for genes in (drawn() for _ in range(20)):
        truth = world.divergence(genes).mean
        assert model.expected(genes) == pytest.approx(truth, rel=1e-3, abs=model._least)


def test_what_diverges_a_lot_says_nothing_about_small_steps_but_about_its_own():
    choices = {name: CHOICES[name] for name in ("encoder.0.ffn_bits", "embedding_bits", "convolution_bits")}
    model, first = AdditiveModel(choices), {name: values[0] for name, values in choices.items()}
    small = [first | {"embedding_bits": 8}, first | {"embedding_bits": 8, "convolution_bits": 8}] * 10
    pairs = [(genes, 0.01 + 0.02 * (genes["convolution_bits"] == 8)) for genes in small]
    broken = first | {"encoder.0.ffn_bits": 8, "embedding_bits": 8}
    model.fit([*pairs, (broken, 9.0), (broken | {"convolution_bits": 8}, 7.0)], most=1.0)
    assert model.expected(first | {"convolution_bits": 8}) == pytest.approx(0.02, abs=1e-3)
    assert model.expected(first | {"encoder.0.ffn_bits": 8}) == pytest.approx(7.0 - 0.03, abs=1e-3)


def test_genes_of_the_archive_are_those_of_its_recipes(tmp_path):
    world = World()
    archive = evolve(world, StudyStore(tmp_path / "study.db"), 20)
    for member in archive.judged:
        assert world.space.decode(member.genes).id == member.recipe_id
