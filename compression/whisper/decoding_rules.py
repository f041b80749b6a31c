"""Which tokens a network never says: openai-whisper's choice, or what came with its checkpoint."""

from collections.abc import Sequence
from dataclasses import dataclass

from whisper.model import Whisper
from whisper.tokenizer import Tokenizer

from compression.whisper.tokenizer import tokenizer_of

_ATTRIBUTE = "decoding_rules"


@dataclass(frozen=True, slots=True)
class DecodingRules:
    """Ids of the original vocabulary. `suppressed`: never said; `begin_suppressed`: not as the first token."""

    suppressed: tuple[int, ...]
    begin_suppressed: tuple[int, ...]

    @classmethod
    def of_openai(cls, tokenizer: Tokenizer) -> "DecodingRules":
        """What `whisper.decode` does by default: no symbols that are not spoken, no special tokens but the end.

        A transcript does not begin with a blank or end before it began.
        """
        return cls(
            suppressed=tuple(sorted({*tokenizer.non_speech_tokens, *special_tokens(tokenizer)})),
            begin_suppressed=(*tokenizer.encode(" "), tokenizer.eot),
        )


def special_tokens(tokenizer: Tokenizer) -> tuple[int, ...]:
    """Those that would be no text, whatever a checkpoint says."""
    special = (tokenizer.transcribe, tokenizer.translate, tokenizer.sot, tokenizer.sot_prev, tokenizer.sot_lm)
    return (*special, tokenizer.no_speech)


def rules_of(network: Whisper, tokenizer: Tokenizer) -> DecodingRules:
    """The network's own, else openai-whisper's."""
    own: DecodingRules | None = getattr(network, _ATTRIBUTE, None)
    return own or DecodingRules.of_openai(tokenizer)


def set_rules(network: Whisper, *, suppressed: Sequence[int], begin_suppressed: Sequence[int]) -> None:
    """From now on these are its own, and those of its copies; special tokens besides, tokens that it lacks left out."""
    never = {*suppressed, *special_tokens(tokenizer_of(network))}
    known = range(network.dims.n_vocab)
    rules = DecodingRules(
        suppressed=tuple(sorted(token for token in never if token in known)),
        begin_suppressed=tuple(token for token in begin_suppressed if token in known),
    )
    setattr(network, _ATTRIBUTE, rules)
