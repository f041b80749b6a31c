"""What a run leaves open, against a count by hand and by brute force; and how it says why it ended."""

from dataclasses import replace

import pytest

from evaluators.accuracy.divergence import Divergence
from search.engines.enumeration import Enumeration
from search.outcome import Ended, Outcome
from search.records.run_records import read_outcome
from search.report.ended import ended_sentence
from search.report.summary import outcome_values
from search.run.time_budget import End, TimeBudget
from search.run.unjudged import how_it_ended, is_judged
from search.space.space import Space
from tests.search.answers import CHOICES, answer, toy_space
from tests.search.run.test_loop import World, open_run

SPACE = toy_space({"embedding_bits": (16, 8, 4), "window_s": (30.0, 20.0, 15.0)})
RECIPES = [SPACE.decode({"embedding_bits": b, "window_s": w}) for b in (16, 8, 4) for w in (30.0, 20.0, 15.0)]


@pytest.fixture
def pricer(artifact_figures) -> World:
    return World(artifact_figures)


def outcome_with(outcome: Outcome, judged: list[int], pick: int | None) -> Outcome:
    """Trials of the recipes of these places, one of them the pick."""
    trials = tuple(replace(answer(n, RECIPES[place]), state="complete") for n, place in enumerate(judged))
    chosen = None if pick is None else trials[judged.index(pick)]
    return replace(outcome, trials=trials, recommended=chosen)


def count_open(outcome: Outcome, space: Space, pricer: World) -> int | None:
    return how_it_ended(outcome, space, Enumeration.of(space, pricer), "time").open_recipes


@pytest.mark.parametrize(("judged", "pick"), [([0], 0), ([0, 3, 8], 3), ([0, 2, 4], None), (list(range(9)), 5)])
def test_what_is_cheaper_and_not_judged_is_open(judged, pick, outcome, pricer):
    found = outcome_with(outcome, judged, pick)
    bound = float("inf") if pick is None else answer(0, RECIPES[pick]).objective
    expected = [n for n in range(9) if n not in judged and answer(0, RECIPES[n]).objective < bound]
    assert count_open(found, SPACE, pricer) == len(expected)


def test_what_its_costs_speak_against_is_not_open(outcome, pricer):
    pricer.reject = True
    assert count_open(outcome_with(outcome, [0], 0), SPACE, pricer) == 0


def test_a_recipe_that_several_combinations_make_counts_once(outcome, pricer):
    """Of a layer's bits and the stack's, the layer's win."""
    choices = {"encoder.ffn_bits": (16, 8), "encoder.0.ffn_bits": (16, 8), "encoder.1.ffn_bits": (16, 8)}
    space = toy_space(choices)
    assert space.combinations == 8
    found = replace(outcome, trials=outcome.trials[:1], recommended=None)
    assert count_open(found, space, pricer) == 3  # of four recipes, one is the original


def test_nobody_counts_too_many(outcome, pricer):
    many = toy_space(CHOICES | {f"decoder.{n}.ffn_bits": (16, 8, 4) for n in range(2)} | {
        f"encoder.{n}.{part}_bits": (16, 8, 4) for n in range(2) for part in ("attention", "ffn")
    })  # fmt: skip
    assert many.combinations > 100_000
    assert count_open(outcome, many, pricer) is None


def test_by_divergence_alone_only_what_is_unlikely_within_the_budget_is_judged(outcome):
    class Certain:
        def scored(self, recipe_id):
            return None

        def expected(self, divergence):
            return type("Estimate", (), {"probability": 1 - divergence})

    found = replace(outcome, certainty=Certain(), confidence=0.5)
    for nats, judged in ((0.2, False), (0.5, False), (0.51, True), (0.9, True)):
        trial = replace(
            answer(1, RECIPES[4]), state="stopped", accuracy=None, divergence=Divergence(nats=(nats,), tokens=(1,))
        )
        assert is_judged(trial, found) == judged
    for state in ("rejected", "failed"):
        assert is_judged(replace(answer(1, RECIPES[4]), state=state, accuracy=None), found)
    assert is_judged(replace(answer(1, RECIPES[4]), state="stopped"), found)


def test_what_diverges_more_than_a_cheaper_one_that_is_over_by_its_wer_is_judged(outcome):
    class Certain:
        def scored(self, recipe_id):
            return None

        def expected(self, divergence):
            return type("Estimate", (), {"probability": 0.9})

    def heard(number: int, place: int, divergence: float, **changes: object):
        return replace(
            answer(number, RECIPES[place]), divergence=Divergence(nats=(divergence,), tokens=(1,)), **changes
        )

    likely = heard(1, 4, 0.02, state="stopped", accuracy=None)
    for divergence, cheaper, over, judged in (
        (0.01, True, 0.2, True),
        (0.03, True, 0.2, False),
        (0.01, False, 0.2, False),
        (0.01, True, -0.1, False),
    ):
        cost = likely.objective + (-0.01 if cheaper else 0.01)
        other = heard(2, 5, divergence, objective=cost, violations={"wer": over}, state="complete")
        assert other.accuracy
        found = replace(outcome, certainty=Certain(), confidence=0.5, trials=(likely, other))
        assert is_judged(likely, found) == judged


EXCLUDED = {"judged": 12, "excluded": 1400, "comparisons": 84, "contradictions": 2}


def ended(outcome: Outcome, **changes: object) -> Outcome:
    pick_id = outcome.recommended.recipe.id if outcome.recommended else None
    values = {"reason": "time", "combinations": 4.7e27, "open_recipes": None, "pick_id": pick_id} | changes
    return replace(outcome, ended=Ended(**values))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {},
            "The search ended because its time was up. How many cheaper recipes are still open was not counted: "
            "this space has 4.7e+27 combinations.",
        ),
        (
            {"reason": "trials", "open_recipes": 1204},
            "The search ended because the trials that it was given were used up. 1,204 cheaper recipes are still open: "
            "within the limits on costs, and not judged.",
        ),
        (
            {"reason": "exhausted", "open_recipes": 0},
            "The search ended because nothing new was left to propose. No cheaper recipe in this space can meet the "
            "budget, assuming that the speech it was judged on stands for what will be said, and that what was stopped "
            "early or diverges too much is over the budget.",
        ),
        (
            {"reason": "proven", "open_recipes": 0, **EXCLUDED},
            "The search ended because the optimum is proven. No cheaper recipe in this space can meet the budget: 12 "
            "were judged, and 1,400 are excluded, being compressed at least as much as one that is over the budget. "
            "This assumes that more compression never brings accuracy back, which 2 of 84 comparisons contradicted, "
            "that the speech it was judged on stands for what will be said, and that what was stopped early or "
            "diverges too much is over the budget.",
        ),
        (
            {"open_recipes": 3, "judged": 1, "excluded": 1, "comparisons": 0, "contradictions": 0},
            "The search ended because its time was up. 3 cheaper recipes are still open: within the limits on costs, "
            "and not judged. 1 is excluded, being compressed at least as much as one that is over the budget, "
            "assuming that more compression never brings accuracy back, which nothing tested.",
        ),
        (
            {"reason": "proven", "open_recipes": 1, **EXCLUDED, "excluded": 0},
            "The search ended because no cheaper recipe was left to judge; what was measured last (a group, a short "
            "window, the confirm set, an artifact) opened some again, with which `whisperfit resume` goes on where it "
            "can. 1 cheaper recipe is still open: within the limits on costs, and not judged.",
        ),
        ({"reason": "interrupted"}, "The search was interrupted before its end."),
        ({"pick_id": "another"}, "The search ended because its time was up."),
        (
            {"reason": "standstill", "stood_still": 600, "pick_id": "another"},
            "The search ended because its front stood still for 600 recipes.",
        ),
    ],
)
def test_the_end_in_words(changes, sentence, outcome, tmp_path):
    found = ended(outcome, **changes)
    assert ended_sentence(found) == sentence
    assert outcome_values(found, tmp_path)["ended"]["sentence"] == sentence
    assert (ended_sentence(outcome), outcome_values(outcome, tmp_path)["ended"]) == ("", None)


def test_without_a_pick_any_recipe_is_open(outcome):
    found = ended(replace(outcome, recommended=None), open_recipes=1)
    assert ended_sentence(found).endswith("1 recipe is still open: within the limits on costs, and not judged.")


def test_a_run_says_which_end_it_came_to(tmp_path, pricer):
    choices = {"embedding_bits": (16, 8), "decoder.heads_removed": (0, 1)}
    for name, end, expected in (
        ("a", End(seconds=65.0, trials=None), "time"),
        ("b", End(seconds=None, trials=2), "trials"),
        ("c", End(seconds=None, trials=None), "exhausted"),
    ):
        (tmp_path / name).mkdir()
        process, store = open_run(tmp_path / name, pricer, choices=choices)
        assert process.run.search(TimeBudget(ledger=process.ledger, end=end, confirm_share=0.0)) == expected
        process.ledger.end(Ended(reason=expected, combinations=4.0))
        assert process.ledger.outcome().ended == Ended(reason=expected, combinations=4.0)
    assert read_outcome(store).ended == Ended(reason="exhausted", combinations=4.0)
    process.ledger.end(None)
    assert read_outcome(store).ended is None
