"""Flags of commands made from the fields of `SearchOptions`, so that an option is written down once."""

import inspect
from collections.abc import Callable, Iterable
from functools import wraps
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer
from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from common.errors import InputError
from search.configuration.options import SearchOptions

Command = Callable[..., None]


def complaint(error: ValidationError) -> str:
    """The first thing that is wrong, with what was given."""
    first = error.errors()[0]
    given = "" if first["type"] == "missing" else f", but got {first['input']!r}"
    return f"{first['msg'].lower()}{given}"


def checked(kind: Any) -> Callable[[typer.CallbackParam, Any], Any]:
    """A typer callback that lets through None and what is in the range of this type, such as `Hours`.

    Raises InputError for anything else, in one line.
    """
    within: TypeAdapter[Any] = TypeAdapter(kind)

    def check(parameter: typer.CallbackParam, value: Any) -> Any:
        try:
            return None if value is None else within.validate_python(value)
        except ValidationError as error:
            raise InputError(f"{parameter.opts[0]}: {complaint(error)}") from error

    return check


def takes(names: Iterable[str]) -> Callable[[Command], Command]:
    """Give a command these options of a search, before its last parameter.

    The command gets those that were given as `flags`: a dictionary by field, checked by `SearchConfig`.
    """
    chosen = tuple(names)

    def decorate(command: Command) -> Command:
        own = [parameter for name, parameter in inspect.signature(command).parameters.items() if name != "flags"]
        made = [_parameter(name, SearchOptions.model_fields[name]) for name in chosen]

        @wraps(command)
        def called(**values: Any) -> None:
            given = {name: values.pop(name) for name in chosen}
            command(flags={name: value for name, value in given.items() if value is not None}, **values)

        parameters = [*own[:-1], *made, own[-1]]
        called.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        called.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return called

    return decorate


def _parameter(name: str, field: FieldInfo) -> inspect.Parameter:
    """A keyword of the command; None where the flag is not given, so that a file's key or the default holds."""
    kind = _plain(field.annotation)
    # a path stays as it was typed: pathlib drops the "./" that tells ./sample from the built-in sample
    metavar = "<path>" if kind is Path else None
    kind = str if kind is Path else kind
    flag = f"--{name.replace('_', '-')}"
    option = typer.Option(flag, help=field.description, metavar=metavar)
    annotation: Any = Annotated[kind | None, option]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _plain(annotation: Any) -> Any:
    """The type under `Annotated` and beside None; text for a choice of names."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _plain(get_args(annotation)[0])
    if origin in {Union, UnionType}:
        (only,) = (part for part in get_args(annotation) if part is not type(None))
        return _plain(only)
    return str if origin is Literal else annotation
