"""Errors counted in characters, as reports name them. Not in `accuracy`, which imports whisper."""

CHARACTER_NORMALISER = "whisper-characters"
"""The name of their normaliser, without its version."""


def counted_units(normaliser: str) -> str:
    """What is counted after the normaliser, or several joined by `+`: `words`, `characters`, or both."""
    kinds = {"characters" if name.startswith(CHARACTER_NORMALISER) else "words" for name in normaliser.split("+")}
    return " and ".join(sorted(kinds, reverse=True))
