"""openai-whisper on torch: `whisper.decode`, greedily, without timestamps, in float32 or with qint8 linear layers.

`compute` "qint8": torch's dynamic quantisation with the engine that it chooses (fbgemm and oneDNN on x86).
"""

from pathlib import Path
from time import perf_counter
from typing import Any

import torch
import whisper
from torch import nn
from whisper.audio import log_mel_spectrogram, pad_or_trim
from whisper.model import ModelDimensions, Whisper

from recognisers.timed import Clip, Floats, Job, Recognise, Said, measure

FILE_NAME = "model.pt"
QINT8 = "qint8"


def quantised(network: Whisper) -> Whisper:
    """The network with qint8 weights in its linear layers; the network given is changed.

    torch replaces only `nn.Linear` itself, which Whisper's layers are a subclass of; they become that first.
    Embedding (and with it the logits) and convolutions stay in float32: torch does not quantise them dynamically.
    """
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Linear):
                linear = nn.Linear(child.in_features, child.out_features, bias=child.bias is not None)
                linear.weight, linear.bias = child.weight, child.bias
                setattr(module, name, linear)
    changed: Whisper = torch.ao.quantization.quantize_dynamic(network, dtype=torch.qint8, inplace=True)
    linears = [module for module in changed.modules() if isinstance(module, nn.Linear)]
    if linears:
        raise ValueError(f"{len(linears)} linear layers were not quantised")
    return changed


def load(job: Job) -> Recognise:
    """The window is always 30 s."""
    torch.set_num_threads(job.threads)
    file = Path(job.files) / FILE_NAME
    network = _load_quantised(file) if job.compute == QINT8 else whisper.load_model(str(file), device="cpu")

    @torch.inference_mode()
    def recognise(samples: Floats, clip: Clip) -> Said:
        mel = log_mel_spectrogram(pad_or_trim(samples), network.dims.n_mels)
        options = whisper.DecodingOptions(
            language=clip.language, without_timestamps=True, sample_len=clip.max_tokens, fp16=False
        )
        started = perf_counter()
        features = network.encoder(mel[None])[0]
        encoded = perf_counter()
        said = whisper.decode(network, features, options)
        finished = perf_counter()
        return Said(
            text=said.text,
            steps=len(said.tokens) + 1,
            encoder_s=encoded - started,
            decoder_s=finished - encoded,
        )

    return recognise


def _load_quantised(file: Path) -> Whisper:
    stored: dict[str, Any] = torch.load(file, weights_only=True)
    network = quantised(Whisper(ModelDimensions(**stored["dims"])).eval())
    network.load_state_dict(stored["model_state_dict"])
    return network


if __name__ == "__main__":
    measure(load)
