"""Energy and CPU occupancy by hand, and profiles without power."""

from dataclasses import replace
from importlib.resources import files

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import InputError
from compression.recipe.recipe import Recipe
from devices.energy import cpu_occupancy, energy_mj
from devices.profile import load_profile
from evaluators.costs.price import price
from tests.strategies import small_dimensions


def test_energy_by_hand():
    assert energy_mj(latency_ms=1500, power_w=4) == 6000  # 1.5 s at 4 W are 6 J
    assert energy_mj(latency_ms=1500, power_w=4 - 1.5) == 3750  # of which 3.75 J would not be drawn at rest


def test_occupancy_by_hand():
    assert cpu_occupancy(latency_ms=1000, audio_s=10, threads=4, cores=4) == 0.1
    assert cpu_occupancy(latency_ms=1000, audio_s=10, threads=4, cores=8) == 0.05
    assert cpu_occupancy(latency_ms=20_000, audio_s=10, threads=2, cores=2) == 2  # cannot follow


@given(st.floats(1, 1e5), st.floats(0.5, 30), st.integers(1, 8), st.integers(1, 8))
def test_occupancy_is_busy_core_seconds_over_core_seconds(latency_ms, audio_s, threads, cores):
    busy = sum(latency_ms / 1000 for _ in range(threads))
    there = sum(audio_s for _ in range(cores))
    assert cpu_occupancy(latency_ms=latency_ms, audio_s=audio_s, threads=threads, cores=cores) == pytest.approx(
        busy / there
    )


def test_costs_on_a_phone_count_the_cores_that_rest():
    """Four of eight cores work."""
    dimensions, phone = small_dimensions(), load_profile("phone-midrange")
    costs = price(dimensions, Recipe.original(dimensions), phone, audio_s=10)
    facts = phone.description.facts
    assert (phone.threads, phone.cores) == (4, 8)
    assert costs.occupancy == pytest.approx(costs.rtf / 2)
    assert costs.energy_mj == pytest.approx(costs.latency_ms * facts.active_power_w.value)
    above_w = facts.active_power_w.value - facts.idle_power_w.value
    assert costs.energy_above_idle_mj == pytest.approx(costs.latency_ms * above_w)


@pytest.mark.parametrize(("missing", "expected"), [("active", (False, False)), ("idle", (True, False))])
def test_without_power_there_is_no_energy(missing, expected):
    dimensions, profile = small_dimensions(), load_profile("rpi4")
    facts = profile.description.facts.model_copy(update={f"{missing}_power_w": None})
    powerless = replace(profile, description=profile.description.model_copy(update={"facts": facts}))
    costs = price(dimensions, Recipe.original(dimensions), powerless)
    assert (costs.energy_mj is not None, costs.energy_above_idle_mj is not None) == expected
    known = {named.name for named in powerless.description.named_facts()}
    assert f"facts.{missing}_power_w" not in known


def test_resting_never_takes_more_than_working(tmp_path):
    toml = (files("devices.profiles") / "rpi4.toml").read_text(encoding="utf-8")
    wrong = toml.replace("idle_power_w = { value = 1.6,", "idle_power_w = { value = 9,")
    (tmp_path / "odd.toml").write_text(wrong, encoding="utf-8")
    with pytest.raises(InputError, match="odd.toml: .*idle_power_w is more than facts.active_power_w"):
        load_profile(str(tmp_path / "odd.toml"))
