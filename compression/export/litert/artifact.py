"""A folder for LiteRT: encoder.tflite, decoder.tflite, vocabulary and configuration; see docs/artifacts.md.

`litert_torch` converts the network, and every matrix on an integer grid is then replaced by its codes. Shapes are
fixed: each file has a signature for the recipe's window and one for 30 s, and the decoder takes one token at a time.
"""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn

from common.errors import InputError
from compression.export.configuration import write_configuration
from compression.export.litert.modules import LONGEST_PROMPT, DecoderStep, EncoderWindow, converted
from compression.export.litert.stored import Codes, digest, stored
from compression.recipe.kernels import FLOAT_BITS
from compression.recipe.recipe import Recipe
from compression.techniques.compressed import Compressed
from compression.techniques.grids import QuantisedMatrix
from compression.whisper.load import LoadedModel
from runtime.window import FRAMES_PER_S, WINDOW_LIMIT_S

ENCODER, DECODER = "encoder.tflite", "decoder.tflite"
CONVOLUTIONS, TAPS = ("encoder.conv1", "encoder.conv2"), 3


Signature = tuple[str, nn.Module, dict[str, Any]]
"""A name, what is called, and inputs as examples."""


def export(model: LoadedModel, recipe: Recipe, compressed: Compressed, out: Path) -> None:
    """Write `compress(model, recipe, ...)` into the folder `out`. Raises InputError where a package is missing."""
    windows = sorted({round(seconds * FRAMES_PER_S) for seconds in (recipe.window_s, WINDOW_LIMIT_S)})
    length = model.dimensions.n_text_ctx // 2 + LONGEST_PROMPT
    encoders, step = converted(compressed, length, windows)
    codes = {name: _codes(name, matrix, recipe) for name, matrix in compressed.matrices.items()}
    heard = {name: keyed for name, keyed in codes.items() if _is_heard(name)}
    said = {name: keyed for name, keyed in codes.items() if not _is_heard(name)}
    with torch.no_grad():
        _write(out / ENCODER, _encoding(encoders), heard)
        _write(out / DECODER, _decoding(step, encoders), said)
    write_configuration(model, recipe, compressed, out)


def _is_heard(name: str) -> bool:
    """Whether a matrix works in the encoder's file, with the keys and values of the audio."""
    return name.startswith("encoder.") or name.endswith((".cross_attn.key", ".cross_attn.value"))


def _codes(name: str, matrix: QuantisedMatrix, recipe: Recipe) -> tuple[bytes, Codes]:
    """The digest of a matrix's values and its codes, both in the order in which the file has them.

    Weights of 8 bits are unpacked where the recipe does not round activations; convolutions always, since no recipe
    rounds theirs.
    """
    codes, values = matrix.codes, matrix.padded()
    is_convolution = name in CONVOLUTIONS
    if is_convolution:
        codes, values = (part.view(len(part), -1, TAPS).transpose(1, 2) for part in (codes, values))
    kept = Codes.of(
        codes.reshape(matrix.codes.shape).numpy(),
        matrix.scales.float().numpy(),
        bits=matrix.bits,
        is_unpacked=is_convolution or (matrix.bits == 8 and recipe.activation_bits == FLOAT_BITS),
    )
    return digest(values.numpy()), kept


def _encoding(encoders: Sequence[EncoderWindow]) -> list[Signature]:
    return [(f"encode_{encoder.frames}", encoder, {"mel": encoder.silence()}) for encoder in encoders]


def _decoding(step: DecoderStep, encoders: Sequence[EncoderWindow]) -> list[Signature]:
    """For each window one, as its keys and values have its shape."""
    token, position = torch.zeros(2, 1, dtype=torch.int32)  # one tensor twice would be taken for one input
    inputs = {"token": token, "position": position, "past": step.caches()}
    return [(f"step_{encoder.frames}", step, inputs | {"audio": encoder(encoder.silence())}) for encoder in encoders]


def _write(path: Path, signatures: Sequence[Signature], codes: Mapping[str, tuple[bytes, Codes]]) -> None:
    path.write_bytes(stored(converted_bytes(signatures), dict(codes.values())))


def converted_bytes(signatures: Sequence[Signature]) -> bytes:
    """A .tflite file in float32. `litert_torch` and what it loads print and warn much, of which nothing is ours."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import litert_torch  # noqa: PLC0415 - takes seconds, and is no dependency

            litert_torch.config.show_progress = False
            converter = litert_torch.Converter()
            for name, module, inputs in signatures:
                converter.signature(name, module, sample_kwargs=inputs)
            with TemporaryDirectory() as scratch:
                file = Path(scratch) / "model.tflite"
                converter.convert().export(str(file))
                return file.read_bytes()
    except ImportError as error:
        raise InputError(f"--target litert needs more packages ({error}): pip install 'whisperfit[litert]'") from error
