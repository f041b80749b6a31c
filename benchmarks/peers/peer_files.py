"""The files of every system that peers.py compares, made from one and the same model."""

import copy
import shutil
from dataclasses import asdict, dataclass, replace
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx
import torch
from onnxruntime.quantization import quantize_dynamic
from onnxruntime.quantization.shape_inference import quant_pre_process
from recognisers.openai_whisper import FILE_NAME, quantised
from torch import Tensor, nn

from common.errors import InputError
from compression.compress import compress
from compression.export import ggml
from compression.export.manifest import Sources, write_manifest
from compression.export.targets import TARGETS, check_exportable
from compression.recipe.recipe import MAX_WINDOW_S, Recipe
from compression.techniques.compressed import Compressed
from compression.techniques.grids import QuantisedMatrix
from compression.whisper.load import LoadedModel
from search.artifacts import calibrated
from search.records.folder import RunFolder
from search.records.run_records import load_facts, read_outcome
from search.records.study_store import StudyStore

OUR_WINDOW_S = 15.0
"""Of our compressed points: the shortest encoder window."""


@dataclass(frozen=True, kw_only=True)
class Pick:
    """What a run recommends, and the speech that it was calibrated on."""

    recipe: Recipe
    sources: Sources


def original(model: LoadedModel, bits: int, *, window_s: float) -> Recipe:
    """The whole model in floating point."""
    return replace(Recipe.original(model.dimensions, stored_bits=bits), window_s=window_s)


def integers(model: LoadedModel, bits: int, *, group_size: int, activation_bits: int) -> Recipe:
    """The whole model with all matrices at these bits, convolutions at 8."""
    recipe = original(model, model.stored_bits, window_s=OUR_WINDOW_S)
    return replace(
        recipe.with_each_layer(attention_bits=bits, ffn_bits=bits),
        embedding_bits=bits,
        convolution_bits=8,
        group_size=group_size,
        activation_bits=activation_bits,
    ).canonical(model.dimensions)


def ggml_integers(model: LoadedModel, bits: int) -> Recipe:
    """The whole model in ggml's blocks of 32 weights, which its kernels multiply with activations of 8 bits."""
    recipe = original(model, 16, window_s=MAX_WINDOW_S)
    return replace(
        recipe.with_each_layer(attention_bits=bits, ffn_bits=bits),
        embedding_bits=bits,
        group_size=32,
        activation_bits=8,
    ).canonical(model.dimensions)


def pick_of(run: Path, model: LoadedModel) -> Pick:
    """What the run recommends. Raises InputError when it recommends nothing, or searched another model."""
    folder = RunFolder.open(run)
    store = StudyStore(folder.study)
    recommended = read_outcome(store).recommended
    if recommended is None:
        raise InputError(f"--run {run}: it recommends no recipe; give another run, or none")
    config, stated = folder.config(), folder.environment()["model_sha256"]
    if stated != model.digest:
        raise InputError(f"--run {run}: it searched another model ({config.model}) than {model.name}; give --model")
    sources = Sources(
        model=config.model,
        calibration=str(config.calibration or config.data),
        calibration_utterances=config.fitted_utterances(load_facts(store).utterances),
        language=config.language,
    )
    return Pick(recipe=recommended.recipe, sources=sources)


def artifact(target: str, recipe: Recipe, sources: Sources, model: LoadedModel, out: Path) -> None:
    """Our artifact, as `whisperfit export` writes it."""
    check_exportable(recipe, model.dimensions, target)
    network = compress(model, recipe, calibrated(model, recipe, sources))
    TARGETS[target](model, recipe, network, out)
    write_manifest(out, target=target, model=model, recipe=recipe, sources=sources)


def stock_quantised_onnx(window_s: float, model: LoadedModel, out: Path) -> None:
    """Our float32 graphs, preprocessed and quantised by ONNX Runtime's own tools with their defaults.

    `quant_pre_process` is the step that their documentation asks for; without it `quantize_dynamic` leaves every
    MatMul in float32, as the stored weights are transposed before they are multiplied. It folds the transpositions, so
    that the embedding is stored twice, for looking up and for the logits. Symbolic shapes are skipped, since they fail
    on ONNX Runtime's own operators; so the type of these operators' outputs has to be stated.
    """
    recipe = original(model, 32, window_s=window_s)
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        TARGETS["onnxruntime"](model, recipe, compress(model, recipe), folder)
        for name in ("encoder.onnx", "decoder.onnx"):
            whole, preprocessed = folder / f"whole.{name}", folder / f"preprocessed.{name}"
            onnx.save(onnx.load(folder / name), whole)  # preprocessing loses weights in a file of their own
            quant_pre_process(whole, preprocessed, skip_symbolic_shape=True)
            quantize_dynamic(preprocessed, out / name, extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT})
        for name in ("config.json", "tokens.txt.gz"):
            shutil.copy(folder / name, out / name)
    write_manifest(out, target="onnxruntime", model=model, recipe=recipe, sources=Sources(model=model.name))


def openai_checkpoint(model: LoadedModel, out: Path) -> None:
    """OpenAI's own format, float16 where that is exact, as OpenAI ships it; `whisper.load_model` widens it."""
    dtype = torch.float16 if model.stored_bits == 16 else torch.float32
    state = {name: value.to(dtype) for name, value in model.network.state_dict().items()}
    _write_torch(model, state, out)


def torch_qint8(model: LoadedModel, out: Path) -> None:
    """The state of the network that torch quantised, as `torch.save` writes it."""
    _write_torch(model, quantised(copy.deepcopy(model.network)).state_dict(), out)


def _write_torch(model: LoadedModel, state: dict[str, Tensor], out: Path) -> None:
    """With what openai-whisper reads besides: its vocabulary and mel filters."""
    torch.save({"dims": asdict(model.dimensions), "model_state_dict": state}, out / FILE_NAME)
    vocabulary = "multilingual.tiktoken" if model.dimensions.is_multilingual else "gpt2.tiktoken"
    for name in (vocabulary, "mel_filters.npz"):
        shutil.copy(Path(str(files("whisper"))) / "assets" / name, out / name)


def ctranslate2_floats(model: LoadedModel, out: Path) -> None:
    """The weights as they are in the checkpoint."""
    recipe = Recipe.original(model.dimensions, stored_bits=model.stored_bits)
    TARGETS["ctranslate2"](model, recipe, Compressed.original(model.network), out)


def ctranslate2_int8(model: LoadedModel, out: Path) -> None:
    """As `ct2-transformers-converter --quantization int8` rounds and stores it.

    (ctranslate2/specs/model_spec.py, `_quantize`: every matrix, embedding and convolution by row, scale max |w| / 127.)
    """
    matrices = {
        name: _ctranslate2_rounding(module.weight.detach().flatten(1))
        for name, module in model.network.named_modules()
        if isinstance(module, nn.Linear | nn.Embedding | nn.Conv1d)
    }
    recipe = Recipe.original(model.dimensions, stored_bits=model.stored_bits)
    rounded = replace(Compressed.original(model.network), matrices=matrices)
    TARGETS["ctranslate2"](model, recipe, rounded, out)


def _ctranslate2_rounding(rows: Tensor) -> QuantisedMatrix:
    highest = rows.abs().amax(1, keepdim=True)
    highest = torch.where(highest == 0, 127.0, highest)
    # a number divided by a tensor is a product with its reciprocal in torch, which rounds twice
    codes = (rows * (torch.full_like(highest, 127.0) / highest)).round() + 128
    return QuantisedMatrix(
        codes=codes.to(torch.uint8).unsqueeze(1),
        scales=highest / 127,
        zero_points=None,
        bits=8,
        columns=rows.shape[1],
    )


def ggml_floats(model: LoadedModel, out: Path) -> None:
    """The weights in float16, which is what whisper.cpp's own conversion writes."""
    TARGETS["ggml"](model, Recipe.original(model.dimensions), Compressed.original(model.network), out)


def ggml_blocks(bits: int, model: LoadedModel, out: Path) -> None:
    """q8_0, q5_0 or q4_0 as whisper.cpp's own `quantize` rounds it."""
    ggml.export_own_rounding(model, bits, out)
