"""Tokens: the special ones, and the text that the others stand for."""

import binascii
import gzip
import zlib
from base64 import b64decode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path

from runtime.audio import Floats
from runtime.byte_pairs import encoded
from runtime.errors import ArtifactError, OptionError

TASKS = ("transcribe", "translate")


@dataclass(frozen=True, kw_only=True)
class SpecialTokens:
    """Ids in the artifact's own vocabulary; None for what the model lacks.

    `suppressed` are never said, `begin_suppressed` not as the first token. `languages`: Whisper's codes, None for an
    English-only model.
    """

    start: int
    end: int
    no_timestamps: int
    no_speech: int | None
    transcribe: int | None
    translate: int | None
    suppressed: tuple[int, ...]
    begin_suppressed: tuple[int, ...]
    languages: Mapping[str, int] | None
    start_of_previous: int | None = None


class Vocabulary:
    """The artifact's tokens, `size` of them."""

    def __init__(self, special: SpecialTokens, texts: Sequence[bytes]) -> None:
        """`texts`: for each token its bytes in base64, empty for special tokens."""
        self.special = special
        self.size = len(texts)
        self._texts = texts

    @classmethod
    def read(cls, file: Path, special: SpecialTokens) -> "Vocabulary":
        """The vocabulary in tokens.txt.gz. Raises ArtifactError when it is no such file."""
        try:
            lines = gzip.decompress(file.read_bytes()).removesuffix(b"\n").split(b"\n")
        except (OSError, EOFError, zlib.error) as error:
            raise ArtifactError(f"{file} cannot be read: {error}") from error
        return cls(special, lines)

    def text(self, tokens: Sequence[int]) -> str:
        """What the tokens say; special tokens say nothing, and bytes that are no UTF-8 become U+FFFD."""
        try:
            return b"".join(map(self.spelling, tokens)).decode("utf-8", errors="replace")
        except binascii.Error as error:
            raise ArtifactError(f"the artifact's tokens.txt.gz is damaged: {error}") from error

    def spelling(self, token: int) -> bytes:
        """A token's bytes; none for special tokens."""
        return b64decode(self._texts[token])

    def encode(self, text: str) -> list[int]:
        """The tokens of a text, such as openai-whisper gives the decoder before a window: it begins with a space.

        Raises OptionError when the vocabulary lacks a byte of it.
        """
        if not text.strip():
            return []
        try:
            return encoded(f" {text.strip()}", self._ranks)
        except KeyError as error:
            raise OptionError(f"this artifact's vocabulary cannot spell {text!r}: it lacks {error}") from error

    @cached_property
    def _ranks(self) -> dict[bytes, int]:
        """The token of each spelling."""
        return {spelling: token for token in range(self.size) if (spelling := self.spelling(token))}

    def check(self, *, language: str | None, task: str) -> None:
        """Raise OptionError unless the model knows the language (None: its own choice) and the task."""
        known = self.special.languages or {"en": 0}
        if language is not None and language not in known:
            close = get_close_matches(language, known, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            kind = "model" if self.special.languages else "English-only model"
            raise OptionError(f"this {kind} does not know the language {language!r}.{hint} Known: {', '.join(known)}")
        if task not in TASKS:
            raise OptionError(f"unknown task {task!r}. Known: {', '.join(TASKS)}")
        if task == "translate" and (self.special.languages is None or self.special.translate is None):
            raise OptionError("this model cannot translate: it knows only the task 'transcribe'")

    def prompt(self, *, language: str, task: str) -> tuple[int, ...]:
        """What the decoder sees after the start token, before it speaks."""
        special = self.special
        if special.languages is None:
            return (special.no_timestamps,)
        task_token = special.translate if task == "translate" else special.transcribe
        prompt = (special.languages[language], task_token, special.no_timestamps)
        return tuple(token for token in prompt if token is not None)

    def before(self, previous: Sequence[int]) -> tuple[int, ...]:
        """What the decoder sees before the start token: the text before, if there is one and the model has a mark."""
        mark = self.special.start_of_previous
        return (mark, *previous) if previous and mark is not None else ()

    def likeliest_language(self, logits: Floats) -> str | None:
        """The language with the highest of the logits (vocabulary,) after the start token; None where it knows one."""
        languages = self.special.languages
        return max(languages, key=lambda code: float(logits[languages[code]])) if languages else None
