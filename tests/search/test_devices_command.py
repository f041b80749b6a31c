import json
from pathlib import Path

import pytest

from devices.profile import known_profiles, load_profile
from search.commands.devices import devices_overview, show_devices
from tests.devices.test_plausibility import TOML, scaled, written


def test_overview_lists_every_profile(capsys: pytest.CaptureFixture[str]) -> None:
    assert tuple(summary.name for summary in devices_overview()) == known_profiles()
    show_devices(None, as_json=False)
    printed = capsys.readouterr().out
    assert all(name in printed for name in known_profiles())


def test_overview_json_is_one_object(capsys: pytest.CaptureFixture[str]) -> None:
    show_devices(None, as_json=True)
    devices = json.loads(capsys.readouterr().out)["devices"]
    assert {device["name"] for device in devices} == set(known_profiles())
    assert {device["source"] for device in devices} == {"estimated"}


@pytest.mark.parametrize("name", known_profiles())
def test_every_number_is_shown_with_unit_kind_and_source(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    show_devices(name, as_json=True)
    shown = json.loads(capsys.readouterr().out)
    profile = load_profile(name)
    assert shown["digest"] == profile.digest
    assert shown["runtime"]["weight_bits"] == list(profile.runtime.weight_bits)
    facts = {fact["name"]: fact for fact in shown["facts"]}
    assert facts["facts.ram_available_mb"]["value"] == profile.ram_available_mb
    assert facts.get("facts.active_power_w", {"value": None})["value"] == profile.active_power_w
    assert all(fact["unit"] and fact["source"] for fact in facts.values())
    assert {fact["kind"] for fact in facts.values()} <= {"measured", "derived", "estimated"}


def test_detail_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    show_devices("imx8mplus", as_json=False)
    printed = capsys.readouterr().out
    assert all(named.name in printed for named in load_profile("imx8mplus").description.named_facts())


def test_numbers_that_disagree_are_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    board = written(tmp_path, TOML, scaled(1000))
    show_devices(board, as_json=True)
    (by_clock, by_facts) = json.loads(capsys.readouterr().out)["warnings"]
    assert "are its times in microseconds, not ms?" in by_clock
    assert "are its times in microseconds, not ms?" in by_facts
    show_devices(board, as_json=False)
    assert capsys.readouterr().out.count("Warning: ") == 2
