"""A whole search on a device that is no CPU: see `tests.pretended_device`."""

# ruff: noqa: F811 - the fixtures of the command line's tests

import json
from pathlib import Path

import pytest

from search import loading
from tests.pretended_device import pretended_device
from tests.search.commands import Whisperfit, files, rows, search_arguments, whisperfit  # noqa: F401

pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")


def test_a_search_elsewhere(
    files: Path, whisperfit: Whisperfit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    arguments = search_arguments(files, run, engine="evolution", trials=6, confirm=files / "confirm.jsonl")
    with pretended_device() as device:
        monkeypatch.setattr(loading, "compute_device", lambda _: device)
        found = whisperfit(*arguments)
    assert found.code in (0, 3), found.err
    assert json.loads((run / "environment.json").read_text())["compute"] == "meta"
    judged = rows(run / "trials.csv")
    assert all(float(row["divergence"]) > 0 for row in judged[1:])
    assert any(row["wer"] for row in judged[1:])
    assert not any("failed" in row["state"] for row in judged)
    assert len(list((run / "models").iterdir())) >= 1
