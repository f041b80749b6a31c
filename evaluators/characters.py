"""Languages whose errors are counted in characters. Not in `accuracy`, which imports whisper: reports need it too."""

CHARACTER_LANGUAGES = frozenset({"zh", "yue", "ja", "th", "lo", "my", "km"})
"""Chinese, Cantonese, Japanese, Thai, Lao, Burmese, Khmer: no spaces between words, so characters are counted."""
CHARACTER_NORMALISER = "whisper-characters"
"""The name of their normaliser, without its version."""


def counted_units(normaliser: str) -> str:
    """What is counted after the normaliser, or several joined by `+`: `words`, `characters`, or both."""
    kinds = {"characters" if name.startswith(CHARACTER_NORMALISER) else "words" for name in normaliser.split("+")}
    return " and ".join(sorted(kinds, reverse=True))
