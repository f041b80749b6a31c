"""transcribe.cpp's files as its own tools make them: its conversion in floats, then `transcribe-quantize`.

Its presets Q8_0, Q5_0 and Q4_0 round every linear layer and the embedding by ggml's own quantiser, and keep
convolutions, vectors and positions in float32 (tools/transcribe-quantize/policy.cpp). Its wheel has no such tool;
`same_as_its_tool.py` compares what stands here with one built from its source, byte for byte.
"""

from dataclasses import replace
from pathlib import Path

from torch import nn

from compression.export.ggml import own_rounding
from compression.export.transcribe_cpp import FILE_NAME, write
from compression.recipe.recipe import Recipe
from compression.techniques.compressed import Compressed
from compression.whisper.load import LoadedModel


def floats(model: LoadedModel, out: Path) -> None:
    """Its F16: matrices in float16, convolutions in float32."""
    _write(model, Compressed.original(model.network), out)


def blocks(bits: int, model: LoadedModel, out: Path) -> None:
    """Its Q8_0, Q5_0 or Q4_0."""
    matrices = {
        name: own_rounding(module.weight.detach(), bits)
        for name, module in model.network.named_modules()
        if isinstance(module, nn.Linear | nn.Embedding)
    }
    _write(model, replace(Compressed.original(model.network), matrices=matrices), out)


def _write(model: LoadedModel, compressed: Compressed, out: Path) -> None:
    recipe = replace(Recipe.original(model.dimensions, stored_bits=16), convolution_bits=32)
    write(out / FILE_NAME, model, recipe, compressed)
