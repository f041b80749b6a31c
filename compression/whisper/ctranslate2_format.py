"""Reader of CTranslate2's Whisper models (model.bin): their variables as openai-whisper's state dict.

The binary layout follows `ModelSpec._serialize` of ctranslate2/specs/model_spec.py (binary version 6), the
names of the variables follow ctranslate2/specs/whisper_spec.py (revision 3). The package itself is not needed.
"""

import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from common.errors import InputError
from common.parsing import parse_json

BINARY_VERSION = 6
SPEC_NAME = "WhisperSpec"
SPEC_REVISION = 3

DTYPES = (torch.float32, torch.int8, torch.int16, torch.int32, torch.float16, torch.bfloat16)
"""In the order of CTranslate2's type ids."""

BLOCK_MODULES = {
    "self_attention/layer_norm": ("attn_ln",),
    "self_attention/linear_0": ("attn.query", "attn.key", "attn.value"),
    "self_attention/linear_1": ("attn.out",),
    "attention/layer_norm": ("cross_attn_ln",),
    "attention/linear_0": ("cross_attn.query",),
    "attention/linear_1": ("cross_attn.key", "cross_attn.value"),
    "attention/linear_2": ("cross_attn.out",),
    "ffn/layer_norm": ("mlp_ln",),
    "ffn/linear_0": ("mlp.0",),
    "ffn/linear_1": ("mlp.2",),
}
"""Modules of a residual block; CTranslate2 stacks the rows of several projections into one linear layer."""
OTHER_MODULES = {
    "encoder/conv1": "encoder.conv1",
    "encoder/conv2": "encoder.conv2",
    "encoder/layer_norm": "encoder.ln_post",
    "decoder/layer_norm": "decoder.ln",
    "decoder/embeddings": "decoder.token_embedding",
}
PROJECTION = "decoder/projection/weight"
EMBEDDING = "decoder/embeddings/weight"
_PARAMETERS = {"weight": "weight", "bias": "bias", "gamma": "weight", "beta": "bias"}
_BLOCK = re.compile(r"(encoder|decoder)/layer_(\d+)/(\w+/\w+)")


@dataclass(frozen=True, kw_only=True)
class ConvertedWhisper:
    """`state` is openai-whisper's state dict in the stored precision; heads are not visible in its shapes."""

    state: Mapping[str, Tensor]
    audio_heads: int
    text_heads: int


def read_whisper(data: bytes, *, source: str) -> ConvertedWhisper:
    """Convert the bytes of a float32, float16 or bfloat16 model.bin; `source` names it in errors.

    Raises InputError when the bytes are truncated, no Whisper, of another version or quantised.
    """
    variables = _read_variables(data, source)
    tensors = {name: value for name, value in variables.items() if value.dim()}
    for name, value in tensors.items():
        if not value.is_floating_point():
            raise InputError(
                f"{source} is quantised ({name} is {str(value.dtype).removeprefix('torch.')}): "
                "convert the original again with --quantization float16"
            )
    if tensors.pop(PROJECTION, None) is not tensors.get(EMBEDDING):
        raise InputError(f"{source}: its output projection is not its embedding; openai-whisper's is")
    state: dict[str, Tensor] = {}
    for name, value in tensors.items():
        state |= _convert(name, value, source)
    return ConvertedWhisper(
        state=state,
        audio_heads=_heads(variables, "encoder/num_heads", source),
        text_heads=_heads(variables, "decoder/num_heads", source),
    )


def read_alignment_heads(config: Path) -> tuple[tuple[int, int], ...]:
    """(layer, head) pairs of config.json that follow the timing of words; empty when there are none."""
    if not config.exists():
        return ()
    try:
        pairs = parse_json(config.read_text(encoding="utf-8")).get("alignment_heads") or ()
        return tuple((int(layer), int(head)) for layer, head in pairs)
    except (ValueError, TypeError, AttributeError) as error:
        raise InputError(f"{config} is no configuration of a CTranslate2 Whisper ({error})") from error


class _Cursor:
    """Reads little-endian values one after the other; raises struct.error at the end of the data."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._offset = 0

    def number(self, code: str) -> int:
        (value,) = struct.unpack_from(f"<{code}", self._data, self._offset)
        self._offset += struct.calcsize(code)
        return int(value)

    def string(self) -> str:
        length = self.number("H")
        (value,) = struct.unpack_from(f"{length}s", self._data, self._offset)
        self._offset += length
        return str(value.rstrip(b"\0").decode())

    def tensor(self) -> Tensor:
        shape = [self.number("I") for _ in range(self.number("B"))]
        dtype = DTYPES[self.number("B")]
        size_bytes = self.number("I")
        if size_bytes != prod(shape) * dtype.itemsize or self._offset + size_bytes > len(self._data):
            raise struct.error(f"a variable of shape {shape} does not fit its {size_bytes} bytes")
        # bytearray: a writable copy, and aligned, which the file's offsets are not
        chunk = bytearray(memoryview(self._data)[self._offset : self._offset + size_bytes])
        self._offset += size_bytes
        return torch.frombuffer(chunk, dtype=dtype).reshape(shape)


def _read_variables(data: bytes, source: str) -> dict[str, Tensor]:
    cursor = _Cursor(data)
    try:
        header = (cursor.number("I"), cursor.string(), cursor.number("I"))
        if header != (BINARY_VERSION, SPEC_NAME, SPEC_REVISION):
            raise struct.error(f"its header says {header}, not {(BINARY_VERSION, SPEC_NAME, SPEC_REVISION)}")
        variables = {cursor.string(): cursor.tensor() for _ in range(cursor.number("I"))}
        # equal variables are stored once, and named again at the end
        return variables | {cursor.string(): variables[cursor.string()] for _ in range(cursor.number("I"))}
    except (struct.error, IndexError, KeyError, UnicodeDecodeError) as error:
        raise InputError(f"{source} is no complete CTranslate2 Whisper: {error}") from error


def _convert(name: str, value: Tensor, source: str) -> dict[str, Tensor]:
    """Entries of the state dict that one variable holds."""
    module, _, parameter = name.rpartition("/")
    if parameter == "encodings":
        return {f"{module.split('/')[0]}.positional_embedding": value}
    parts = _modules(module)
    if not parts or parameter not in _PARAMETERS:
        raise InputError(f"{source} is no Whisper that openai-whisper can hold: it has a variable {name!r}")
    entries: dict[str, Tensor] = {}
    for part, rows in zip(parts, value.chunk(len(parts)), strict=True):
        if part.endswith(".key") and parameter == "bias":
            if rows.any():
                raise InputError(f"{source} has a bias on the keys ({name}); openai-whisper's keys have none")
        else:
            entries[f"{part}.{_PARAMETERS[parameter]}"] = rows
    return entries


def _modules(module: str) -> tuple[str, ...]:
    """openai-whisper's names of the modules in one of CTranslate2's; empty when unknown."""
    if module in OTHER_MODULES:
        return (OTHER_MODULES[module],)
    block = _BLOCK.fullmatch(module)
    if block is None:
        return ()
    stack, index, part = block.groups()
    return tuple(f"{stack}.blocks.{index}.{name}" for name in BLOCK_MODULES.get(part, ()))


def _heads(variables: Mapping[str, Any], name: str, source: str) -> int:
    if name not in variables:
        raise InputError(f"{source} is no complete CTranslate2 Whisper: it lacks {name}")
    return int(variables[name])
