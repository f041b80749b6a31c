"""Running an openai-whisper network in ways that its own modules do not offer."""

import torch.nn.functional as F  # noqa: N812, torch's own abbreviation
from torch import Tensor
from whisper.model import Whisper


def encode(network: Whisper, mel: Tensor) -> Tensor:
    """The encoder's output for a window of any length up to the model's own (30 s, 3000 frames).

    `mel` has the shape (batch, n_mels, frames), with an even number of frames; the result has the shape
    (batch, frames // 2, n_audio_state) and is where the network is. A shorter window gets the first frames // 2
    positions. At the full window the result equals `network.encoder(mel)` bit for bit: the same operations in the same
    order.
    """
    return encoder_states(network, mel)[-1]


def encoder_states(network: Whisper, mel: Tensor) -> list[Tensor]:
    """What leaves each encoder block, and at last `encode`'s result; each (batch, frames // 2, n_audio_state)."""
    encoder = network.encoder
    frames = mel.shape[-1]
    positions = encoder.positional_embedding
    if frames % 2 or not 0 < frames <= 2 * len(positions):
        raise ValueError(f"an even number of frames up to {2 * len(positions)} must hold, but got {frames}")
    x = F.gelu(encoder.conv1(mel.to(positions.device)))
    x = F.gelu(encoder.conv2(x))
    x = x.permute(0, 2, 1)
    x = (x + positions[: frames // 2]).to(x.dtype)
    states = []
    for block in encoder.blocks:
        x = block(x)
        states.append(x)
    return [*states, encoder.ln_post(x)]


def decoder_states(network: Whisper, tokens: Tensor, encoded: Tensor) -> list[Tensor]:
    """What leaves each decoder block, and at last what is multiplied by the embedding to give logits.

    `tokens` (batch, length) int64 are rows of its embedding, `encoded` is (batch, positions, n_audio_state); each state
    is (batch, length, n_text_state). The operations are those of `network.decoder`.
    """
    return embedded_decoder_states(network, network.decoder.token_embedding(tokens.to(encoded.device)), encoded)


def embedded_decoder_states(network: Whisper, embedded: Tensor, encoded: Tensor) -> list[Tensor]:
    """`decoder_states` of tokens whose rows of the embedding (batch, length, n_text_state) are given."""
    decoder = network.decoder
    x = embedded + decoder.positional_embedding[: embedded.shape[1]]
    states = []
    for block in decoder.blocks:
        x = block(x, encoded, mask=decoder.mask)
        states.append(x)
    return [*states, decoder.ln(x)]
