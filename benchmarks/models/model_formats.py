"""Hugging Face directories of every shape and format: what is read, how far its logits are from transformers' own.

    python benchmarks/models/model_formats.py > benchmarks/results/model_formats.md

Random weights at small widths, real speech; and tiny.en and base as transformers saves them. Needs `transformers`.
"""

import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import WhisperConfig, WhisperForConditionalGeneration

from common.errors import InputError
from compression.compress import compress
from compression.export import huggingface
from compression.recipe.recipe import Recipe
from compression.whisper.load import LoadedModel, load_model
from compression.whisper.network import encode
from evaluators.speech.features import CachedFeatures
from evaluators.speech.speech_set import load_speech_set

TOKENS = torch.tensor([[50257, 50258, 50359, 11, 290, 257]])
WIDTHS = {
    "d_model": 64,
    "encoder_ffn_dim": 256,
    "decoder_ffn_dim": 256,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 2,
}
SHAPES = {
    "English-only": {"vocab_size": 51864},
    "multilingual": {"vocab_size": 51865},
    "large-v3": {"vocab_size": 51866, "num_mel_bins": 128},
    "turbo": {"vocab_size": 51866, "num_mel_bins": 128, "encoder_layers": 6, "decoder_layers": 4},
    "distil, 2 decoder layers": {"vocab_size": 51865, "decoder_layers": 2},
    "distil, 1 decoder layer": {"vocab_size": 51865, "decoder_layers": 1},
}
Change = Callable[[Path], object]


def main() -> None:
    print("# Hugging Face directories\n\nLargest difference of a logit from transformers' own, on a clip of speech.\n")
    print("| network | format | difference |\n|---|---|---|")
    for row in (*made_rows(), *real_rows()):
        print("| " + " | ".join(row) + " |", flush=True)
    print("\n## What is refused\n\n| what | the line |\n|---|---|")
    for row in refused_rows():
        print("| " + " | ".join(row) + " |", flush=True)


def made_rows() -> Iterator[tuple[str, str, str]]:
    """Each shape in each format and type."""
    for name, shape in SHAPES.items():
        torch.manual_seed(0)
        theirs = WhisperForConditionalGeneration(
            WhisperConfig(**{"encoder_layers": 4, "decoder_layers": 4} | WIDTHS | shape)
        )
        for dtype in (torch.float32, torch.float16, torch.bfloat16):
            for format_, change in {"one file": _same, "shards": _same, "pytorch_model.bin": _as_torch_file}.items():
                with tempfile.TemporaryDirectory() as folder:
                    size = "4MB" if format_ == "shards" else "5GB"
                    theirs.to(dtype).eval().save_pretrained(folder, max_shard_size=size)
                    change(Path(folder))
                    yield name, f"{format_}, {str(dtype).removeprefix('torch.')}", _difference(Path(folder), theirs)


def real_rows() -> Iterator[tuple[str, str, str]]:
    """Real weights, by our own exporter into transformers and back."""
    for name in ("tiny.en", "base"):
        with tempfile.TemporaryDirectory() as folder:
            theirs = as_transformers(name, Path(folder))
            yield name, "one file, float16", _difference(Path(folder), theirs)
            save_with_added_token(theirs, Path(folder))
            yield f"{name} with an added token", "one file, float16", _difference(Path(folder), theirs)


def as_transformers(name: str, folder: Path) -> WhisperForConditionalGeneration:
    """A model as transformers reads it from what our own exporter writes into the folder."""
    model = load_model(name)
    recipe = Recipe.original(model.dimensions, stored_bits=model.stored_bits)
    huggingface.export(model, recipe, compress(model, recipe), folder)
    return WhisperForConditionalGeneration.from_pretrained(folder)


def save_with_added_token(theirs: WhisperForConditionalGeneration, folder: Path) -> None:
    """By transformers, with one token more in its vocabulary."""
    theirs.resize_token_embeddings(theirs.config.vocab_size + 1)
    theirs.save_pretrained(folder)


@torch.inference_mode()
def _difference(folder: Path, theirs: WhisperForConditionalGeneration) -> str:
    try:
        ours = load_model(str(folder))
    except InputError as error:
        return f"refused: {str(error).removeprefix(str(folder))}"
    mel = _mel(ours)
    expected = theirs.float()(input_features=mel[None], decoder_input_ids=TOKENS).logits[..., : ours.dimensions.n_vocab]
    return f"{(ours.network.decoder(TOKENS, encode(ours.network, mel[None])) - expected).abs().max():.1e}"


def _mel(model: LoadedModel) -> Tensor:
    [utterance, *_] = load_speech_set(Path("sample-search")).utterances
    return CachedFeatures(n_mels=model.dimensions.n_mels).mel(utterance)


def _same(_: Path) -> None:
    pass


def _as_torch_file(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def refused_rows() -> Iterator[tuple[str, str]]:
    """What people have beside checkpoints."""
    changes: dict[str, Change] = {
        "a PEFT adapter": _only("adapter_config.json"),
        "weights of TensorFlow": _only("tf_model.h5"),
        "weights of Flax": _only("flax_model.msgpack"),
        "bitsandbytes": _configured(quantization_config={"quant_method": "bitsandbytes"}),
        "float8": _tensors(lambda value: value.to(torch.float8_e4m3fn)),
        "another network": _configured(model_type="wav2vec2"),
    }
    theirs = WhisperForConditionalGeneration(WhisperConfig(encoder_layers=1, decoder_layers=1, **WIDTHS))
    for name, change in changes.items():
        with tempfile.TemporaryDirectory() as folder:
            theirs.save_pretrained(folder)
            change(Path(folder))
            try:
                load_model(folder)
                yield name, "read"
            except InputError as error:
                yield name, str(error).replace(folder, "DIR")


def _only(name: str) -> Change:
    def change(folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        (folder / name).write_bytes(b"{}")

    return change


def _configured(**values: object) -> Change:
    def change(folder: Path) -> None:
        file = folder / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | values))

    return change


def _tensors(changed: Callable[[Tensor], Tensor]) -> Change:
    def change(folder: Path) -> None:
        file = folder / "model.safetensors"
        save_file({name: changed(value) for name, value in load_file(file).items()}, file)

    return change


if __name__ == "__main__":
    main()
