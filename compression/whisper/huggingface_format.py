"""A Whisper as `transformers` saves it: config.json, weights in one file or in shards, generation_config.json.

Names of tensors are mapped onto openai-whisper's, and back. Nothing but `safetensors` and torch reads the files, and
neither runs code of theirs.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from common.errors import InputError
from common.files import sha256_of_file, sha256_of_text
from common.parsing import parse_json
from compression.whisper.torch_files import load_tensors

WEIGHTS = ("model.safetensors", "pytorch_model.bin")
"""Of one file; the first that is there is read. Shards have an index, with `.index.json` behind the name."""
_ELSEWHERE = {
    "adapter_config.json": "a PEFT adapter: merge it into its model (merge_and_unload) and save that",
    "adapter_model.safetensors": "a PEFT adapter: merge it into its model (merge_and_unload) and save that",
    "tf_model.h5": "weights of TensorFlow: load them with from_tf=True and save them again",
    "flax_model.msgpack": "weights of Flax: load them with from_flax=True and save them again",
}
"""Files of folders that hold no weights for torch, and what to do."""
_MOST_CONFIG_BYTES = 1 << 24

_OUTER = {
    "encoder.embed_positions.weight": "encoder.positional_embedding",
    "encoder.layer_norm": "encoder.ln_post",
    "decoder.embed_tokens": "decoder.token_embedding",
    "decoder.embed_positions.weight": "decoder.positional_embedding",
    "decoder.layer_norm": "decoder.ln",
}
_ATTENTION = {"q_proj": "query", "k_proj": "key", "v_proj": "value", "out_proj": "out"}
_INNER = {
    **{f"self_attn.{theirs}": f"attn.{ours}" for theirs, ours in _ATTENTION.items()},
    **{f"encoder_attn.{theirs}": f"cross_attn.{ours}" for theirs, ours in _ATTENTION.items()},
    "self_attn_layer_norm": "attn_ln",
    "encoder_attn_layer_norm": "cross_attn_ln",
    "fc1": "mlp.0",
    "fc2": "mlp.2",
    "final_layer_norm": "mlp_ln",
}
_LAYER = re.compile(r"(encoder|decoder)\.layers\.(\d+)\.(.+)\.(weight|bias)")
_BLOCK = re.compile(r"(encoder|decoder)\.blocks\.(\d+)\.(.+)\.(weight|bias)")
_THEIR_OUTER = {ours: theirs for theirs, ours in _OUTER.items()}
_THEIR_INNER = {ours: theirs for theirs, ours in _INNER.items()}
_OUTPUT, _EMBEDDING = "proj_out.weight", "decoder.token_embedding.weight"


@dataclass(frozen=True, kw_only=True)
class HuggingFaceWhisper:
    """`state`: by openai-whisper's names, in the types of the file. `digest`: SHA-256 of the weights' files and of
    what else decides what the network says: its heads, and the tokens below.

    `suppressed`, `begin_suppressed`: of its generation_config.json; None where nothing says so. `language`, `task`,
    `forced`: what else it decodes with; None, and no tokens, where nothing says so.
    """

    state: Mapping[str, Tensor]
    digest: str
    audio_heads: int
    text_heads: int
    suppressed: tuple[int, ...] | None
    begin_suppressed: tuple[int, ...] | None
    alignment_heads: tuple[tuple[int, int], ...]
    language: str | None
    task: str | None
    forced: tuple[int, ...]


def is_huggingface(folder: Path) -> bool:
    """Whether a folder holds what transformers or its relatives save."""
    named = (*WEIGHTS, *(f"{name}.index.json" for name in WEIGHTS), *_ELSEWHERE)
    return any((folder / name).is_file() for name in named)


def read_huggingface(folder: Path) -> HuggingFaceWhisper:
    """Raises InputError when the folder holds no complete Whisper whose values are those that were trained."""
    files = _weights(folder)
    config = _json(folder / "config.json")
    _check(folder, config)
    generation = _json(folder / "generation_config.json") if (folder / "generation_config.json").exists() else None
    heads = [config.get(f"{stack}_attention_heads", 0) for stack in ("encoder", "decoder")]
    never = [_tokens(folder, generation, config, key) for key in ("suppress_tokens", "begin_suppress_tokens")]
    return HuggingFaceWhisper(
        state=_state(folder, files),
        digest=sha256_of_text(json.dumps([[sha256_of_file(file) for file in files], heads, never])),
        audio_heads=heads[0],
        text_heads=heads[1],
        suppressed=never[0],
        begin_suppressed=never[1],
        alignment_heads=_alignment_heads(folder, generation or {}),
        language=_text(folder, generation or {}, "language"),
        task=_text(folder, generation or {}, "task"),
        forced=_forced(folder, config if generation is None else generation),
    )


def _weights(folder: Path) -> list[Path]:
    """The files that hold the weights."""
    for name in WEIGHTS:
        if (folder / name).is_file():
            return [folder / name]
        index = folder / f"{name}.index.json"
        if index.is_file():
            return _shards(folder, index)
    found = next(name for name in _ELSEWHERE if (folder / name).is_file())
    raise InputError(f"{folder} holds {_ELSEWHERE[found]}")


def _shards(folder: Path, index: Path) -> list[Path]:
    named = _json(index).get("weight_map")
    names = sorted(set(named.values())) if isinstance(named, dict) and named else []
    if not names or not all(isinstance(name, str) and Path(name).name == name for name in names):
        raise InputError(f"{index} is broken: its weight_map names no files of this folder")
    for name in names:
        if not (folder / name).is_file():
            raise InputError(f"{folder} lacks {name}, which its {index.name} names: fetch the whole folder")
    return [folder / name for name in names]


def _check(folder: Path, config: Mapping[str, Any]) -> None:
    """Raise InputError where the configuration tells that the network is not Whisper's, or its values are lost."""
    kind = config.get("model_type")
    if kind != "whisper":
        raise InputError(f"{folder} is no Whisper: its config.json says model_type {kind!r}")
    quantised = config.get("quantization_config")
    if quantised:
        method = quantised.get("quant_method", "another tool") if isinstance(quantised, dict) else "another tool"
        raise InputError(
            f"{folder} is quantised already, by {method}, and what its weights were is lost: "
            "give the checkpoint that it was made from"
        )
    if config.get("activation_function", "gelu") != "gelu" or config.get("scale_embedding"):
        raise InputError(
            f"{folder} is no Whisper as OpenAI's: its activation is not gelu, or its embeddings are scaled"
        )


def _state(folder: Path, files: Sequence[Path]) -> dict[str, Tensor]:
    state: dict[str, Tensor] = {}
    for file in files:
        for name, value in _tensors(file):
            state[_renamed(name)] = value
    output, embedding = state.pop(_OUTPUT, None), state.get(_EMBEDDING)
    if output is not None and (embedding is None or not torch.equal(output, embedding)):
        raise InputError(
            f"{folder} has an output matrix that is not its embedding (tie_word_embeddings false), which no runtime of "
            "Whisper's has: train it with tied ones"
        )
    return state


def _renamed(name: str) -> str:
    """openai-whisper's name of a tensor; one that is unknown stays, and is refused with the others' names."""
    name = name.removeprefix("model.")
    if found := _LAYER.fullmatch(name):
        stack, layer, part, kind = found.groups()
        return f"{stack}.blocks.{layer}.{_INNER.get(part, part)}.{kind}"
    whole = _OUTER.get(name)
    module, _, kind = name.rpartition(".")
    return whole or f"{_OUTER.get(module, module)}.{kind}"


def their_name(name: str) -> str:
    """transformers' name of a tensor of openai-whisper's."""
    if found := _BLOCK.fullmatch(name):
        stack, layer, part, kind = found.groups()
        return f"model.{stack}.layers.{layer}.{_THEIR_INNER[part]}.{kind}"
    module, _, kind = name.rpartition(".")
    return f"model.{_THEIR_OUTER.get(name) or f'{_THEIR_OUTER.get(module, module)}.{kind}'}"


def _tensors(file: Path) -> Iterator[tuple[str, Tensor]]:
    """Names and values. Raises InputError where the file is broken, or holds what is no float of 16 or 32 bits."""
    for name, value in _safe_tensors(file) if file.suffix == ".safetensors" else _torch_tensors(file):
        if value.dtype not in {torch.float16, torch.bfloat16, torch.float32}:
            raise InputError(
                f"{file} holds {name} as {str(value.dtype).removeprefix('torch.')}: only float16, bfloat16 and float32 "
                "are what was trained; give the checkpoint that it was made from"
            )
        yield name, value


def _safe_tensors(file: Path) -> Iterator[tuple[str, Tensor]]:
    try:
        with safe_open(file, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118 - no dictionary
                yield name, opened.get_tensor(name)
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise InputError(f"{file} is broken or no safetensors file ({error})") from error


def _torch_tensors(file: Path) -> Iterator[tuple[str, Tensor]]:
    found = load_tensors(file)
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        raise InputError(f"{file} holds no dictionary of tensors")
    yield from found.items()


def _json(file: Path) -> dict[str, Any]:
    """Raises InputError when it is no JSON object."""
    try:
        if file.stat().st_size > _MOST_CONFIG_BYTES:
            raise InputError(f"{file} is too large for a configuration")
        values = parse_json(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{file.parent} lacks {file.name}: give the folder that save_pretrained wrote") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{file} cannot be read ({error})") from error
    if not isinstance(values, dict):
        raise InputError(f"{file} is no JSON object")
    return values


def _tokens(
    folder: Path, generation: Mapping[str, Any] | None, config: Mapping[str, Any], key: str
) -> tuple[int, ...] | None:
    """A list of ids: of generation_config.json, where one that is missing or null is empty; else of config.json."""
    values = config.get(key) if generation is None else generation.get(key) or ()
    if values is None:
        return None
    if not isinstance(values, list | tuple) or not all(type(value) is int and value >= 0 for value in values):
        raise InputError(f"{folder}: {key} is no list of tokens")
    return tuple(values)


def _text(folder: Path, generation: Mapping[str, Any], key: str) -> str | None:
    value = generation.get(key)
    if value is not None and not isinstance(value, str):
        raise InputError(f"{folder}: {key} in generation_config.json is no text")
    return value


def _forced(folder: Path, config: Mapping[str, Any]) -> tuple[int, ...]:
    """Tokens that a transcript begins with; positions where none is forced are left out."""
    pairs = config.get("forced_decoder_ids") or ()
    if not isinstance(pairs, list | tuple) or not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
        raise InputError(f"{folder}: forced_decoder_ids are no pairs of position and token")
    return tuple(token for _, token in pairs if type(token) is int)


def _alignment_heads(folder: Path, config: Mapping[str, Any]) -> tuple[tuple[int, int], ...]:
    pairs = config.get("alignment_heads") or ()
    if not all(isinstance(pair, list) and [type(value) for value in pair] == [int, int] for pair in pairs):
        raise InputError(f"{folder}: alignment_heads are no pairs of layer and head")
    return tuple((layer, head) for layer, head in pairs)
