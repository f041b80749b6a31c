"""Running an openai-whisper network in ways that its own modules do not offer."""

import torch.nn.functional as F  # noqa: N812, torch's own abbreviation
from torch import Tensor
from whisper.model import Whisper


def encode(network: Whisper, mel: Tensor) -> Tensor:
    """The encoder's output for a window of any length up to the model's own (30 s, 3000 frames).

    `mel` has the shape (batch, n_mels, frames), with an even number of frames; the result has the shape
    (batch, frames // 2, n_audio_state). A shorter window gets the first frames // 2 positions. At the full window
    the result equals `network.encoder(mel)` bit for bit: the same operations in the same order.
    """
    encoder = network.encoder
    frames = mel.shape[-1]
    positions = encoder.positional_embedding
    if frames % 2 or not 0 < frames <= 2 * len(positions):
        raise ValueError(f"an even number of frames up to {2 * len(positions)} must hold, but got {frames}")
    x = F.gelu(encoder.conv1(mel))
    x = F.gelu(encoder.conv2(x))
    x = x.permute(0, 2, 1)
    x = (x + positions[: frames // 2]).to(x.dtype)
    for block in encoder.blocks:
        x = block(x)
    return encoder.ln_post(x)
