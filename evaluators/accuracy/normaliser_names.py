"""What normalisers are called, and what they count. Not in `normalisers`, which imports whisper."""

from typing import Literal, get_args

from common.errors import UnknownNameError

NormaliserChoice = Literal["whisper", "basic", "none", "no-diacritics"]
"""What a user may choose; see `evaluators.accuracy.normalisers.normaliser_for`."""
NORMALISERS: tuple[NormaliserChoice, ...] = get_args(NormaliserChoice)
_CHARACTERS = ("whisper-characters", "none-characters")
"""How the names of the normalisers begin that split texts into characters."""


def parse_normaliser(text: str) -> NormaliserChoice:
    """The choice of that name. Raises UnknownNameError."""
    for choice in NORMALISERS:
        if choice == text:
            return choice
    raise UnknownNameError("normaliser", text, NORMALISERS)


def counted_units(normaliser: str) -> str:
    """What is counted after the normaliser, or several joined by `+`: `words`, `characters`, or both."""
    kinds = {"characters" if name.startswith(_CHARACTERS) else "words" for name in normaliser.split("+")}
    return " and ".join(sorted(kinds, reverse=True))
