"""LocalAgreement-2 on passes made by hand, and its property."""

from hypothesis import given
from hypothesis import strategies as st

from runtime.live.local_agreement import LocalAgreement

PASSES = [
    ("Ask not.", 0),
    ("Ask not what you.", 2),
    ("what your country", 1),
    ("your country can do", 2),
    ("can, do for you", 2),
    ("for", 1),
]
"""What follows the words that are final already, and how many of its first words both it and the one before have."""


def test_the_longest_common_prefix_of_two_passes_is_final() -> None:
    agreement = LocalAgreement()
    for text, count in PASSES:
        assert agreement.agreed(text.split()) == count
        agreement.made_final(count)


def test_signs_and_case_do_not_matter_but_signs_alone_are_no_word() -> None:
    agreement = LocalAgreement()
    assert agreement.agreed(["Dear", " -", " Sir."]) == 0
    assert agreement.agreed([" dear,", " -", " sir"]) == 1


def test_what_was_forgotten_agrees_with_nothing() -> None:
    agreement = LocalAgreement()
    agreement.agreed(["a", "b"])
    agreement.forget()
    assert agreement.agreed(["a", "b"]) == 0


def test_only_words_that_became_final_are_not_expected_again() -> None:
    agreement = LocalAgreement()
    agreement.agreed(["a", "b", "c"])
    assert agreement.agreed(["a", "b", "c"]) == 3
    agreement.made_final(1)
    assert agreement.agreed(["b", "c"]) == 2


@given(st.lists(st.lists(st.sampled_from("abc"), max_size=8), max_size=12))
def test_final_words_are_a_common_prefix_of_both_passes(passes: list[list[str]]) -> None:
    """Each pass is a whole text that is forced to begin with the final words, as the decoder is."""
    agreement, final, texts = LocalAgreement(), list[str](), list[list[str]]()
    for rest in passes:
        before = list(final)
        texts.append([*final, *rest])
        count = agreement.agreed(rest)
        agreement.made_final(count)
        final += rest[:count]
        assert final[: len(before)] == before
        if len(texts) > 1:
            assert all(text[: len(final)] == final for text in texts[-2:])
        else:
            assert not final
