"""Which tokens a network never says: openai-whisper's choice, or what came with its checkpoint."""

from collections.abc import Sequence
from dataclasses import dataclass

from whisper.model import Whisper
from whisper.tokenizer import TO_LANGUAGE_CODE, Tokenizer

from common.errors import InputError
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


def forced_language(network: Whisper, named: str | None, forced: Sequence[int]) -> str | None:
    """Whisper's code of the language that a checkpoint decodes in: as it names it (`german`, `de`, `<|de|>`), else by
    the tokens that it begins with; None where it leaves that open, or the network knows but one.

    Raises InputError when the network does not know it.
    """
    if not network.is_multilingual:
        return None
    tokenizer = tokenizer_of(network)
    codes = dict(zip(tokenizer.all_language_tokens, tokenizer.all_language_codes, strict=True))
    if named is None:
        return next((codes[token] for token in forced if token in codes), None)
    text = named.lower().removeprefix("<|").removesuffix("|>")
    code = TO_LANGUAGE_CODE.get(text, text)
    if code not in codes.values():
        raise InputError(f"its generation_config.json names the language {named!r}, which the model does not know")
    return code


def translates(network: Whisper, task: str | None, forced: Sequence[int]) -> bool:
    """Whether a checkpoint is meant to translate, by what it names or begins with."""
    return task == "translate" or (task is None and tokenizer_of(network).translate in forced)


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
