"""Recipes as JSON: the text that decides their ids, and reading it with errors that say where something is wrong."""

import json
from collections.abc import Callable
from dataclasses import MISSING, fields, is_dataclass
from reprlib import repr as shortened
from typing import Any, TypeVar

from common.errors import InputError, UnknownNameError, naming
from common.parsing import parse_json

FORMAT_VERSION = 1
YOUNGER_FIELDS = frozenset(
    {
        *("rounding", "range_estimator", "smoothing", "recovery", "nearest", "vocabulary", "vocabulary_language"),
        *("ffn_rank", "frequent_tokens", "scale_bits"),
    }
)
"""Of recipes and their layers: added since the first recipes were written, with a default that means "as before"."""

Made = TypeVar("Made")


def canonical_json(recipe: Any) -> str:
    """Sorted keys, no spaces, a format version, without younger fields at their defaults."""
    return json.dumps({"version": FORMAT_VERSION, **_plain(recipe)}, sort_keys=True, separators=(",", ":"))


def _plain(value: Any) -> Any:
    """Dataclasses as dictionaries, without the fields that say what a recipe of the first format meant."""
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if not is_dataclass(value):
        return value
    pairs = ((field, getattr(value, field.name)) for field in fields(value))
    return {f.name: _plain(v) for f, v in pairs if f.name not in YOUNGER_FIELDS or v != f.default}


def read_object(text: str) -> dict[str, Any]:
    """The fields of a JSON object of this format version, without the version. Raises InputError when it is none."""
    try:
        values = parse_json(text)
    except ValueError as error:
        raise InputError(f"no valid JSON ({error})") from error
    if not isinstance(values, dict):
        raise InputError(f"must be a JSON object, but got {shortened(values)}")
    if "version" not in values:
        raise InputError("version is missing")
    version = values.pop("version")
    if type(version) is not int or version != FORMAT_VERSION:
        raise InputError(
            f"format version {shortened(version)} is not {FORMAT_VERSION}, the one that this program reads"
        )
    return values


def made(kind: Callable[..., Made], values: object) -> Made:
    """A dataclass of a JSON object's values, lists as tuples.

    Raises InputError for a field that is missing or unknown, or that the dataclass refuses.
    """
    if not isinstance(values, dict):
        raise InputError(f"must be a JSON object, but got {shortened(values)}")
    known = {field.name: field for field in fields(kind)}  # type: ignore[arg-type] # a dataclass
    for name in values:
        if name not in known:
            raise UnknownNameError("field", name, known)
    for name, field in known.items():
        if name not in values and field.default is MISSING:
            raise InputError(f"{name} is missing")
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


def made_layers(kind: Callable[..., Made], values: object, stack: str) -> tuple[Made | None, ...]:
    """The layers of a stack, None where one is dropped. Raises as `made`, naming the layer: `encoder.2: ...`."""
    if not isinstance(values, list):
        raise InputError(f"{stack} must be a list of layers, but got {shortened(values)}")
    layers = []
    for index, layer in enumerate(values):
        with naming(f"{stack}.{index}"):
            layers.append(None if layer is None else made(kind, layer))
    return tuple(layers)
