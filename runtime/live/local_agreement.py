"""LocalAgreement-2: words on which two decodings in a row agree are final.

D. Macháček, R. Dabre, O. Bojar, "Turning Whisper into Real-Time Transcription System", 2023: of the hypotheses about a
growing stretch of audio, the longest common prefix of the last two is final.
"""

from collections.abc import Sequence


class LocalAgreement:
    """Compares each hypothesis with the one before; both are what follows the words that are final already."""

    def __init__(self) -> None:
        self._before: list[str] = []

    def agreed(self, words: Sequence[str]) -> int:
        """How many of the first words both hypotheses have.

        Words are compared by their letters and digits, without case: signs change until the sentence is over.
        """
        current = [_letters(word) for word in words]
        count = 0
        for now, before in zip(current, self._before, strict=False):
            if not now or now != before:
                break
            count += 1
        self._before = current
        return count

    def made_final(self, words: int) -> None:
        """So many words of the last hypothesis became final: the next one follows them."""
        self._before = self._before[words:]

    def forget(self) -> None:
        """What comes next is another stretch of audio."""
        self._before = []


def _letters(word: str) -> str:
    return "".join(character for character in word.casefold() if character.isalnum())
