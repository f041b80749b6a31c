"""Why a prediction is far from a measurement, as far as the row and the model's assumptions tell."""

from collections.abc import Callable
from dataclasses import dataclass
from math import log

from boards_rows import Case

FAR = 1.5
"""Factor from which a prediction is far off."""
RELIABLE_ROWS = 3
MANY_TOKENS = 60


def is_far(factor: float) -> bool:
    """Whether predicted / measured is off by more than FAR either way."""
    return abs(log(factor)) > log(FAR)


@dataclass(frozen=True, kw_only=True)
class _Miss:
    """A case that was missed; `slower`: what it was against the prediction; `rows`: of its runtime, on other chips."""

    case: Case
    slower: str
    rows: int

    def assumes(self, words: str) -> bool:
        return any(words in text for text in self.case.assumed)

    def says(self, column: str, words: str) -> bool:
        return words in self.case.row[column].lower()


_REASONS: tuple[tuple[Callable[[_Miss], bool], str], ...] = (
    (
        lambda miss: miss.case.debug,
        "A build without optimisation: how much it loses depends on the compiler; another phone lost 7 times.",
    ),
    (
        lambda miss: miss.assumes("model size"),
        "The row does not say which size of model ran; base, taken here, need not be it.",
    ),
    (
        lambda miss: miss.says("stage", "response latency"),
        "The time from the end of a phrase to its text, in which a program may also wait for earlier audio: of the "
        "published ones, small takes 1.8 times as long as tiny, with 9 times the arithmetic.",
    ),
    (
        lambda miss: miss.says("runtime", "minimal"),
        "A minimal example program, whose threads and file are not stated; a Pi 4 runs another TFLite in 3.9 s.",
    ),
    (
        lambda miss: miss.assumes("length of audio"),
        "The row does not say how long the audio was, so the number of tokens is a guess.",
    ),
    (lambda miss: miss.assumes("token count"), "The row does not say how many tokens were decoded."),
    (
        lambda miss: miss.case.family == "whisper.cpp BLAS",
        "ggml's threads wait busily while OpenBLAS's threads multiply; what that costs differs from board to board.",
    ),
    (
        lambda miss: miss.case.family == "whisper.cpp" and not miss.case.blocked,
        "An old build streams its activations once per row of weights, so memory and caches decide, of which only one "
        "thread's memcpy is known: {chip} was {slower} than that says.",
    ),
    (
        lambda miss: miss.assumes("threads"),
        "Neither threads nor cores are stated, on a chip with fast and slow ones.",
    ),
    (
        lambda miss: miss.rows < RELIABLE_ROWS,
        "Only {rows} rows of {family} on other chips say how well it uses a processor; what is usual for its kernels "
        "was taken, and it was {slower}.",
    ),
    (
        lambda miss: miss.case.stage == "decoder" or miss.case.tokens > MANY_TOKENS,
        "Decoding was {slower} than streaming the weights once per token: beams and fallbacks are not stated.",
    ),
)
_UNKNOWN = "{family} on {chip} was {slower} than other chips' rows say; the row does not tell why."


def reason(case: Case, factor: float, rows_of_family: int) -> str:
    """One sentence. `rows_of_family`: rows of the same runtime on other chips, on which constants were fitted."""
    miss = _Miss(case=case, slower="faster" if factor > 1 else "slower", rows=rows_of_family)
    sentence = next((text for applies, text in _REASONS if applies(miss)), _UNKNOWN)
    return sentence.format(chip=case.chip.name, slower=miss.slower, rows=miss.rows, family=case.family)
