"""Fixtures that every package's tests share."""

import os
from pathlib import Path

import pytest

SHARED_SPEECH = Path(__file__).parents[2] / "shared" / "speech"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "shared" in item.keywords and not SHARED_SPEECH.exists():
            item.add_marker(pytest.mark.skip(reason=f"needs the real speech in {SHARED_SPEECH}"))
        if "slow" in item.keywords and os.environ.get("WHISPERFIT_SLOW") != "1":
            item.add_marker(pytest.mark.skip(reason="takes minutes; set WHISPERFIT_SLOW=1 to run it"))


@pytest.fixture(scope="session")
def shared_speech() -> Path:
    return SHARED_SPEECH
