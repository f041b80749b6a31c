"""Normalisers: what makes a reference and a transcript comparable, by language and by the user's choice."""

import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache

import regex
from whisper.normalizers import BasicTextNormalizer, EnglishTextNormalizer
from whisper.normalizers.basic import ADDITIONAL_DIACRITICS
from whisper.version import __version__ as whisper_version

from compression.recipe.spaceless import SPACELESS
from evaluators.accuracy.normaliser_names import NormaliserChoice
from evaluators.speech.language import language_of
from evaluators.speech.speech_set import Utterance

REVISION = 1
"""Of what is done here beside Whisper's own: raise it when that changes, since names must."""

_APOSTROPHES = "\u2018\u2019\u201a\u201b\u02b9\u02bb\u02bc\u02bd\u055a\u2032\ua78c\uff07`\u00b4"
_QUOTES = "\u201c\u201d\u201e\u201f\u00ab\u00bb\u2033\u301d\u301e\u301f\uff02"
_DASHES = "\u2010\u2011\u2012\u2013\u2014\u2015\u2212\ufe58\ufe63\uff0d"
_ASCII = str.maketrans(
    {
        **dict.fromkeys(_APOSTROPHES, "'"),
        **dict.fromkeys(_QUOTES, '"'),
        **dict.fromkeys(_DASHES, "-"),
        "\u0130": "i",  # lower() makes two characters of it, the second a mark
    }
)
_ELLIPSIS = regex.compile(r"\u2026|\.{2,}")
"""Whisper's English normaliser makes a word of one at the end: `wait .`."""
_CLUSTER = regex.compile(r"\X")


@dataclass(frozen=True, kw_only=True)
class Normaliser:
    """Makes texts comparable; `name` carries its version and belongs beside every WER."""

    name: str
    normalise: Callable[[str], str]


@cache
def normaliser_for(language: str, choice: NormaliserChoice = "whisper") -> Normaliser:
    """What the choice means for a language.

    `whisper`: Whisper's English normaliser for "en", its basic one for every other language, after `plain`, and the
    basic one keeps the marks in words. `basic`: that one for English too. `no-diacritics`: as `whisper`, without
    accents, in the texts of either side. `none`: the texts as they are, split at spaces. For SPACELESS all of them
    also put spaces between all characters, so that each counts as a word.
    """
    suffix = f"{whisper_version}.{REVISION}"
    if choice == "none":
        return Normaliser(name="none-characters" if language in SPACELESS else "none", normalise=_as_it_is(language))
    if language == "en" and choice != "basic":  # it drops diacritics anyway
        english = EnglishTextNormalizer()
        return Normaliser(name=f"whisper-english-{suffix}", normalise=lambda text: english(plain(text)))
    kind = "whisper-characters" if language in SPACELESS else "whisper-basic"
    basic = BasicTextNormalizer(split_letters=language in SPACELESS)
    basic.clean = without_symbols
    if choice == "no-diacritics":
        return Normaliser(
            name=f"{kind}-no-diacritics-{suffix}", normalise=lambda text: basic(without_diacritics(plain(text)))
        )
    return Normaliser(name=f"{kind}-{suffix}", normalise=lambda text: basic(plain(text)))


def normaliser_of(utterances: Iterable[Utterance], choice: NormaliserChoice = "whisper") -> str:
    """The names of the normalisers that these utterances' texts go through, joined by `+`."""
    return "+".join(sorted({normaliser_for(language_of(utterance), choice).name for utterance in utterances}))


def plain(text: str) -> str:
    """Typographic apostrophes, quotes, dashes and spaces as ASCII has them; nothing invisible, no ellipsis; in NFC.

    Whisper's normalisers know only ASCII's: to them `don’t` is two words, neither of which is `not`.
    """
    text = _ELLIPSIS.sub(" ", unicodedata.normalize("NFC", text).translate(_ASCII))
    categories = ((character, unicodedata.category(character)) for character in text)
    return "".join(" " if category == "Zs" else character for character, category in categories if category != "Cf")


def without_symbols(text: str) -> str:
    """Whisper's `remove_symbols`, which keeps marks: NFKC, symbols and punctuation are spaces.

    Whisper makes spaces of marks too, so that a vowel sign of an Indic script splits its word. A mark that stands
    alone, or only chooses a glyph, goes.
    """
    kept: list[str] = []
    for character in unicodedata.normalize("NFKC", text):
        category = unicodedata.category(character)
        if category[0] in "SP":
            kept.append(" ")
        elif category[0] != "M" or (kept and kept[-1] != " " and not _chooses_glyph(character)):
            kept.append(character)
    return "".join(kept)


def without_diacritics(text: str) -> str:
    """`naïve` as `naive`, and no vowel points of Arabic and Hebrew; the marks that are letters of a script stay.

    Those that go are at or around a letter by their combining class (Unicode 16, table 4-3: 10 to 36 are the points of
    Hebrew, Arabic and Syriac, from 200 on the accents); beside them what Whisper takes for letters with a diacritic.
    """
    letters = "".join(ADDITIONAL_DIACRITICS.get(character, character) for character in text)
    kept = (c for c in unicodedata.normalize("NFKD", letters) if not _is_diacritic(unicodedata.combining(c)))
    return unicodedata.normalize("NFC", "".join(kept))


def _is_diacritic(combining_class: int) -> bool:
    return 10 <= combining_class <= 36 or combining_class >= 200


def _chooses_glyph(mark: str) -> bool:
    return "VARIATION SELECTOR" in unicodedata.name(mark, "")


def _as_it_is(language: str) -> Callable[[str], str]:
    """The same characters, also where Unicode spells them in two ways."""
    if language in SPACELESS:
        return lambda text: " ".join(_CLUSTER.findall("".join(unicodedata.normalize("NFC", text).split())))
    return lambda text: unicodedata.normalize("NFC", text)
