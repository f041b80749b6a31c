"""A name or a path: decided once, where the user gives it.

A known name is that name, whatever lies in the folder; anything else is a path. From then on it is absolute, so it
holds from every folder and no name can be mistaken for it: `./base` stays a file although OpenAI has a `base`.
"""

import os
from collections.abc import Collection, Mapping
from pathlib import Path

from common.files import expanded
from compression.recipe.dimensions import published_models
from devices.profile import known_profiles
from evaluators.speech.speech_set import SAMPLES
from search.space.space import PRESETS

NAMES: Mapping[str, Collection[str]] = {
    "model": published_models(),
    "device": known_profiles(),
    "space": tuple(PRESETS),
    **dict.fromkeys(("data", "confirm", "calibration", "unlabelled"), tuple(SAMPLES)),
    "noise": (),
}
"""What each of these options knows by name. All may be paths."""


def settled(given: str, names: Collection[str], folder: Path = Path()) -> str:
    """The name as it is, a path absolute; in a file it is relative to that file's folder.

    What is not there stays as it was given, in a file beside it if it has a slash: whoever needs it complains.
    """
    if given in names:
        return given
    path = folder / expanded(Path(given))
    is_of_a_file = os.sep in given and folder != Path()
    return str(_absolute(path)) if is_of_a_file or str(Path(given)) in names or _exists(path) else given


def recorded(value: str, names: Collection[str], folder: Path) -> str:
    """For a file in that folder: the name as it is, a path relative to the folder, and never like a name."""
    if value in names or not (Path(value).is_absolute() or _exists(Path(value))):
        return value
    relative = Path(os.path.relpath(_absolute(Path(value)), folder.resolve())).as_posix()
    return relative if "/" in relative or relative in {".", ".."} else f"./{relative}"


def speech_path(given: str | Path) -> Path:
    """The speech that an option names, for `load_speech_set`."""
    return Path(settled(str(given), NAMES["data"]))


def _absolute(path: Path) -> Path:
    """Of the folder that it really lies in; a link keeps its own name."""
    return path.resolve() if path.name == ".." else path.parent.resolve() / path.name


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a name longer than any file's, a zero byte
        return False
