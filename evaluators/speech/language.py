"""Which language an utterance is decoded and normalised in."""

from whisper.tokenizer import LANGUAGES

from common.errors import InputError
from compression.recipe.dimensions import Dimensions
from evaluators.speech.speech_set import SpeechSet, Utterance


def language_of(utterance: Utterance) -> str:
    """The language that the speech set states. Raises InputError when it states none."""
    if utterance.language is None:
        raise InputError(f"utterance {utterance.id} states no language: give --language")
    return utterance.language


def known_languages(dimensions: Dimensions) -> frozenset[str]:
    """Whisper's codes of those that a model of these dimensions knows; Cantonese came with large-v3."""
    return frozenset(list(LANGUAGES)[: dimensions.n_vocab - 51766]) if dimensions.is_multilingual else frozenset({"en"})


def check_languages(speech: SpeechSet, dimensions: Dimensions) -> None:
    """Raise InputError unless a model of these dimensions knows the language of every utterance."""
    known = known_languages(dimensions)
    for utterance in speech.utterances:
        if language_of(utterance) not in known:
            model = "this model" if dimensions.is_multilingual else "this English-only model"
            raise InputError(
                f"speech set {speech.name}: {model} does not know the language {utterance.language!r} of "
                f"utterance {utterance.id}; use another model, or mend the speech set"
            )
