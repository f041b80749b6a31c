"""Records as JSON: what a run keeps, with a version, and how older versions are read."""

import json
from typing import Any, Generic, TypeVar

from pydantic import TypeAdapter, ValidationError

from common.errors import InputError
from common.parsing import parse_json

VERSION = 2
"""1, without the word: rates of errors were flat, beside what they were of."""

FLOAT_NOISE = 1e-9
"""Of violations in version 1, where rates were compared: one error more is a larger share of any limit."""

Kept = TypeVar("Kept")


class RecordFormat(Generic[Kept]):
    """One kind of dataclass as JSON text."""

    def __init__(self, kind: type[Kept], name: str) -> None:
        """`name`: what errors call it."""
        self._adapter = TypeAdapter(kind)
        self._name = name

    def write(self, value: Kept) -> str:
        """The value with all its fields and the version."""
        values: dict[str, Any] = self._adapter.dump_python(value, mode="json", warnings="error")
        return json.dumps({"version": VERSION} | values, sort_keys=True)

    def read(self, text: str) -> Kept:
        """The value, also of version 1. Raises InputError when it is of a younger version, or damaged."""
        try:
            values: dict[str, Any] = parse_json(text)
            version = values.pop("version", 1)
            if version > VERSION:
                raise InputError(
                    f"the run's {self._name} has format version {version}, this program reads up to {VERSION}: "
                    "use the whisperfit that wrote it"
                )
            return self._adapter.validate_python(values if version == VERSION else _with_rates(values))
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            raise InputError(f"the run's {self._name} is damaged: {place}: {first['msg'].lower()}") from error
        except (ValueError, AttributeError, TypeError) as error:
            raise InputError(f"the run's {self._name} is damaged: {error}") from error


def _with_rates(value: Any) -> Any:
    """A value of version 1 as version 2 nests it: `rate` wherever there is a rate of errors, `key` in groups.

    Where a trial was just at its limit, the last bit of a rate does not make it infeasible.
    """
    if isinstance(value, list):
        return [_with_rates(item) for item in value]
    if not isinstance(value, dict):
        return value
    values = {name: _with_rates(item) for name, item in value.items()}
    if "violations" in values:
        over = values["violations"]
        values["violations"] = {name: 0.0 if 0 < over[name] < FLOAT_NOISE else over[name] for name in over}
    if "wer_low" not in values:
        return values
    kinds = {name: values.pop(name, None) for name in ("insertions", "deletions", "substitutions")}
    wer, words = values.pop("wer"), values.pop("words")
    counted = sum(kinds.values()) if None not in kinds.values() else round(wer * words)
    rate = {"errors": values.pop("errors", counted), "words": words}
    rate |= {"low": values.pop("wer_low"), "high": values.pop("wer_high")} | kinds
    key = {"key": {"kind": values.pop("kind"), "name": values.pop("name")}} if "kind" in values else {}
    return values | key | {"rate": rate}
