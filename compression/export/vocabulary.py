"""The tokens of a compressed network, as exported files number them: by the rows of its token embedding."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from torch import Tensor
from whisper.tokenizer import Tokenizer

from compression.techniques.compressed import Compressed
from compression.whisper.decoding_rules import DecodingRules, rules_of
from compression.whisper.tokenizer import text_tokens, tokenizer_of


@dataclass(frozen=True, kw_only=True)
class KeptTokens:
    """`rows`: (n_vocab,), the row of each of the tokenizer's ids, -1 where a shorter vocabulary lacks it."""

    tokenizer: Tokenizer
    rules: DecodingRules
    rows: Tensor

    @classmethod
    def of(cls, compressed: Compressed) -> Self:
        """Those that the network has kept."""
        tokenizer = tokenizer_of(compressed.network)
        rules = rules_of(compressed.network, tokenizer)
        return cls(tokenizer=tokenizer, rules=rules, rows=compressed.vocabulary.rows)

    def texts(self) -> list[bytes]:
        """The bytes of each row of the embedding; none for special tokens."""
        texts = text_tokens(self.tokenizer)
        kept = (self.rows >= 0).nonzero().flatten().tolist()
        return [texts[token] if token < len(texts) else b"" for token in kept]

    @property
    def suppressed(self) -> list[int]:
        """Rows that are never decoded."""
        return self.kept(self.rules.suppressed)

    @property
    def begin_suppressed(self) -> list[int]:
        """Rows that do not begin a transcript."""
        return self.kept(self.rules.begin_suppressed)

    def row(self, token: int) -> int:
        return int(self.rows[token])

    def kept(self, tokens: Iterable[int]) -> list[int]:
        """The rows of those tokens that have one."""
        return [row for token in tokens if (row := self.row(token)) >= 0]
