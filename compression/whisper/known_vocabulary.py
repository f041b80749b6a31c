"""Which of Whisper's own vocabularies a network speaks. The number of its rows alone does not tell.

openai-whisper concludes every special token's id from the number of rows. A fine-tune with one added token has the
number of another vocabulary, or of none: read by it, an English-only model is prompted as a multilingual one.
"""

from collections.abc import Set

import torch
from whisper.model import Whisper
from whisper.tokenizer import get_tokenizer

from compression.recipe.dimensions import ENGLISH_ONLY, MULTILINGUAL, THIRD_LARGE, VOCABULARIES
from compression.whisper.network import encode

THIRD_LARGE_MELS = 128
"""Only large-v3, its turbo and what was made from them hear so many mel bands."""
PROBE_FRAMES = 200
SILENCE = -1.5
"""Of openai-whisper's log-mel: (log10(1e-10) + 4) / 4."""
DECIDED = 0.5
"""A share of the probability: a trained model gives the tokens that may follow the start above 0.99, read by another
vocabulary below 0.03 (tiny.en, base), random weights about what their number gives, 0.002."""


def known_rows(network: Whisper) -> int | None:
    """The size of the vocabulary of Whisper's own that the embedding begins with; rows behind it were added.

    None where there are more rows than any has and nothing tells which it was. Where the network decides nothing
    (random weights), the number of rows is believed.
    """
    rows = network.dims.n_vocab
    if rows <= ENGLISH_ONLY:
        return rows
    if network.dims.n_mels == THIRD_LARGE_MELS:
        return min(rows, THIRD_LARGE)
    probabilities = {base: _start_probability(network, base) for base in (ENGLISH_ONLY, MULTILINGUAL)}
    likely = max(probabilities, key=probabilities.__getitem__)
    if probabilities[likely] > DECIDED:
        return likely
    return rows if rows in VOCABULARIES else None


@torch.inference_mode()
def _start_probability(network: Whisper, base: int) -> float:
    """What the network gives, in silence, to the tokens that follow the start of a transcript in this vocabulary."""
    tokenizer = get_tokenizer(base == MULTILINGUAL)
    encoded = encode(network, torch.full((1, network.dims.n_mels, PROBE_FRAMES), SILENCE))
    logits = network.decoder(torch.tensor([[tokenizer.sot]]), encoded)[0, -1, :base]
    return float(logits.softmax(-1)[sorted(_openings(base))].sum())


def _openings(base: int) -> Set[int]:
    """After the start: a language, or in English-only models a timestamp or that there are none; or no speech."""
    tokenizer = get_tokenizer(base == MULTILINGUAL)
    if base == MULTILINGUAL:
        return {tokenizer.no_speech, *tokenizer.all_language_tokens}
    first_second = range(tokenizer.timestamp_begin, tokenizer.timestamp_begin + 51)
    return {tokenizer.no_speech, tokenizer.no_timestamps, *first_second}
