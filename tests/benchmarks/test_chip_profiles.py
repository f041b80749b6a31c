"""Profiles of boards from public facts of their chips: the files are those that the script writes."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks" / "latency"))
from chip_profiles import BOARDS, PROFILES, Board, profile

from compression.recipe.recipe import Recipe
from devices.profile import load_profile
from evaluators.costs.price import price
from tests.evaluators.profiling.test_random_workloads import TINY


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.name)
def test_the_file_is_the_one_that_the_script_writes(board: Board) -> None:
    written = (PROFILES / f"{board.name}.toml").read_text(encoding="utf-8")
    assert written == profile(board), "run python benchmarks/latency/chip_profiles.py"


def test_a_chip_with_the_cores_of_a_shipped_board_is_about_as_fast() -> None:
    """i.MX 8M Mini has the cores and the clock of 8M Plus, and slower memory."""
    recipe = Recipe.original(TINY, stored_bits=16).with_each_layer(attention_bits=8, ffn_bits=8).canonical(TINY)
    ours, shipped = (price(TINY, recipe, load_profile(name)).latency_ms for name in ("imx8mm", "imx8mplus"))
    assert 1 < ours / shipped < 1.4
