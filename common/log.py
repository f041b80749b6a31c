"""What a process writes on stderr while it works: lines of text, or one JSON object a line."""

import logging
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any

import structlog


def write_log(*, as_json: bool, details: bool) -> None:
    """From now on; `details`: what was noted too, which a text on a terminal leaves out."""
    structlog.configure(
        processors=[
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer() if as_json else _as_text,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG if details else logging.INFO),
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
        cache_logger_on_first_use=False,
    )


def writes_json() -> bool:
    """Whether the log is for programs."""
    return isinstance(structlog.get_config()["processors"][-1], structlog.processors.JSONRenderer)


def tell(text: str) -> None:
    """One line for the user, as it is: a long path is not broken."""
    structlog.get_logger().info(text)


def note(event: str, **values: Any) -> None:
    """One thing that happened, with its figures; None says nothing."""
    structlog.get_logger().debug(event, **{name: value for name, value in values.items() if value is not None})


def _as_text(_: Any, level: str, values: MutableMapping[str, Any]) -> str:
    """What a user is told has no time; what is noted has, and its figures by name."""
    time, event = values.pop("timestamp"), values.pop("event")
    return str(event) if level == "info" else " ".join([time, event, *_named(values)])


def _named(values: Mapping[str, Any]) -> list[str]:
    return [f"{name}={value}" for name, value in values.items()]


write_log(as_json=False, details=False)
