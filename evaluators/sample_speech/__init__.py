"""The built-in speech: 48 synthetic English utterances, made by `synthesise.py`, in two disjoint parts."""

from pathlib import Path
from typing import Literal

Part = Literal["search", "confirm"]


def sample_speech(part: Part) -> Path:
    """The manifest of the part that a search scores on (32 utterances) or of the one kept to confirm it (16)."""
    return Path(__file__).parent / f"{part}.jsonl"
