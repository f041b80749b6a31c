"""JSON and TOML whose every fault is a ValueError: Python's own parsers let depth through as a RecursionError."""

import json
import tomllib
from typing import Any

_TOO_DEEP = "nested too deeply"


def parse_json(text: str) -> Any:
    """Raises ValueError when the text is no JSON."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None


def parse_toml(text: str) -> dict[str, Any]:
    """Raises ValueError when the text is no TOML."""
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
