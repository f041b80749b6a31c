"""Normalisers against Whisper's own on ASCII, and against what a reader of the language counts."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from whisper.normalizers import BasicTextNormalizer, EnglishTextNormalizer

from common.errors import UnknownNameError
from evaluators.accuracy.normaliser_names import NORMALISERS, NormaliserChoice, counted_units, parse_normaliser
from evaluators.accuracy.normalisers import normaliser_for, plain, without_diacritics, without_symbols
from evaluators.accuracy.scripts import script_note, script_of
from evaluators.accuracy.word_errors import count_errors


def words(text: str, language: str, choice: NormaliserChoice = "whisper") -> list[str]:
    return normaliser_for(language, choice).normalise(text).split()


def errors(reference: str, transcript: str, language: str, choice: NormaliserChoice = "whisper") -> int:
    return count_errors(
        utterance_id="u", speaker="s", reference=reference, hypothesis=transcript, language=language, normaliser=choice
    ).errors


@pytest.mark.parametrize(
    "typographic",
    [
        "I don\u2019t know", "I don\u2018t know", "I don\u02bct know", "I don\uff07t know", "I don\u00b4t know",
        "I don\u201bt know", "\u201cI\u00a0don\u2019t\u201d \u2014 know", "\u201eI don\u2019t\u201f\u202fknow",
        "I do\u00adn\u2019t kn\u200bow", "\ufeffI don\u2019t know\u2026", "I don\u2019t know...",
        "I\u2013don\u2019t\u2013know",
    ],
)  # fmt: skip
def test_typography_is_no_error_in_english(typographic: str) -> None:
    assert words(typographic, "en") == EnglishTextNormalizer()("I don't know").split() == ["i", "do", "not", "know"]
    assert errors(typographic, "I don't know.", "en") == errors("I don't know.", typographic, "en") == 0


@pytest.mark.parametrize(("language", "text", "ascii_text"), [
    ("fr", "L\u2019eau d\u02bcici", "l'eau d'ici"),
    ("it", "un\u2019altra", "un'altra"),
    ("uk", "п\u02bcять об\u2019єкт", "п'ять об'єкт"),
    ("de", "Nord\u2011Süd\u2010Bahn \u2013 schön", "Nord-Süd-Bahn - schön"),
    ("de", "Donau\u00addampf", "Donaudampf"),
    ("tr", "\u0130stanbul", "istanbul"),
])  # fmt: skip
def test_typography_is_no_error_elsewhere(language: str, text: str, ascii_text: str) -> None:
    assert errors(text, ascii_text, language) == 0


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=40).filter(lambda text: ".." not in text))
def test_ascii_is_normalised_as_by_whisper(text: str) -> None:
    unquoted = text.replace("`", " ")
    assert words(unquoted, "en") == EnglishTextNormalizer()(unquoted).split()
    assert words(unquoted, "de") == BasicTextNormalizer()(unquoted).split()


@given(st.text("aäöüßéèêñçąłøÅÉ ,.!?-", max_size=40).filter(lambda text: ".." not in text))
def test_composed_letters_are_normalised_as_by_whisper(text: str) -> None:
    assert words(text, "es") == BasicTextNormalizer()(text).split()


@pytest.mark.parametrize(
    ("language", "text", "count"),
    [
        ("hi", "हिन्दी में बोलिए", 3),
        ("hi", "ज़िन्दगी की कहानी", 3),
        ("mr", "मराठी भाषा, छान आहे.", 4),
        ("bn", "আমি বাংলায় কথা বলি", 4),
        ("ta", "நான் தமிழ் பேசுகிறேன்", 3),
        ("te", "తెలుగు మాట్లాడండి", 2),
        ("ml", "മലയാളം സംസാരിക്കൂ", 2),
        ("kn", "ಕನ್ನಡ ಮಾತನಾಡಿ", 2),
        ("gu", "ગુજરાતી બોલો", 2),
        ("pa", "ਪੰਜਾਬੀ ਬੋਲੋ", 2),
        ("si", "සිංහල කතා කරන්න", 3),
        ("ne", "नेपाली", 1),
        ("bo", "བོད་སྐད", 2),
        ("yo", "ọ́mọ̀ mi", 2),
        ("ar", "كِتَابٌ جَدِيدٌ", 2),
        ("he", "שָׁלוֹם עוֹלָם", 2),
        ("fa", "می\u200cخواهم", 1),
        ("en", "❤️ love 5\ufe0f\u20e3", 2),
    ],
)
def test_marks_do_not_split_words(language: str, text: str, count: int) -> None:
    for choice in NORMALISERS[:2]:
        for form in ("NFC", "NFD"):
            assert len(words(unicodedata.normalize(form, text), language, choice)) == count


def test_a_wrong_vowel_sign_is_an_error() -> None:
    assert errors("हिन्दी में बोलिए", "हिन्दी मे बोलिए", "hi") == 1


@given(st.text(max_size=30))
def test_no_mark_and_no_symbol_stands_alone(text: str) -> None:
    for word in without_symbols(plain(text)).split():
        assert unicodedata.category(word[0])[0] not in "MSPZ"


@pytest.mark.parametrize(
    ("language", "reference", "transcript"),
    [
        ("es", "que hora es manana", "¿Qué hora es mañana?"),
        ("de", "schone Strasse", "schöne Straße"),
        ("pl", "lodz", "Łódź"),
        ("ar", "كتاب", "كِتَابٌ"),
        ("he", "שלום", "שָׁלוֹם"),
        ("vi", "tieng Viet", "tiếng Việt"),
    ],
)
def test_without_diacritics_they_are_no_errors(language: str, reference: str, transcript: str) -> None:
    assert errors(reference, transcript, language) > 0
    assert errors(reference, transcript, language, "no-diacritics") == 0
    assert errors(transcript, reference, language, "no-diacritics") == 0


@pytest.mark.parametrize("text", ["हिन्दी", "ขอบคุณครับ", "ガラス", "오늘", "தமிழ்", "తెలుగు", "ລາວ ນ້ຳ"])
def test_marks_that_are_letters_of_a_script_are_no_diacritics(text: str) -> None:
    assert without_diacritics(text) == unicodedata.normalize("NFC", unicodedata.normalize("NFKD", text))


def test_the_choices() -> None:
    assert words("Doctor's 22 COLOURS", "en", "basic") == ["doctor", "s", "22", "colours"]
    assert words("Doctor's 22 COLOURS", "en", "none") == ["Doctor's", "22", "COLOURS"]
    assert words("今天 很好。", "zh", "none") == list("今天很好。")
    assert errors("cafe\u0301", "café", "fr", "none") == 0
    names = {choice: (normaliser_for("en", choice).name, normaliser_for("es", choice).name) for choice in NORMALISERS}
    assert names == {
        "whisper": ("whisper-english-20250625.1", "whisper-basic-20250625.1"),
        "basic": ("whisper-basic-20250625.1", "whisper-basic-20250625.1"),
        "none": ("none", "none"),
        "no-diacritics": ("whisper-english-20250625.1", "whisper-basic-no-diacritics-20250625.1"),
    }
    for choice in NORMALISERS:
        assert counted_units(normaliser_for("ja", choice).name) == "characters"
        assert counted_units(normaliser_for("de", choice).name) == "words"
    assert counted_units("whisper-characters-20250625+whisper-basic-20250625") == "words and characters"  # before


def test_an_unknown_choice_is_named() -> None:
    assert [parse_normaliser(name) for name in NORMALISERS] == list(NORMALISERS)
    with pytest.raises(UnknownNameError, match="normaliser 'wisper'.*Did you mean 'whisper'"):
        parse_normaliser("wisper")


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("добро јутро", "CYRILLIC"), ("dobro jutro", "LATIN"), ("हिन्दी", "DEVANAGARI"), ("オバマ大統領は", "CJK"),
        ("ＤＪ", "LATIN"), ("12, 13!", None), ("", None), ("ОК, hello you", "LATIN"),
    ],
)  # fmt: skip
def test_scripts(text: str, script: str | None) -> None:
    assert script_of(text) == script


def test_a_script_that_differs_is_told() -> None:
    serbian = [("добро јутро", "Dobro jutro."), ("хвала", "Hvala."), ("да", "Да."), ("13", "Trinaest.")]
    note = script_note(serbian)
    assert note.startswith(
        "in 2 of 3 utterances reference and transcript are in different scripts (Cyrillic against Latin)"
    )
    assert script_note([(there, here) for here, there in serbian]).count("(Latin against Cyrillic)") == 1
    assert script_note([("今天天氣", "今天天气"), ("東京タワー", "とうきょう"), ("hello", "")]) == ""
    assert script_note([]) == ""
