"""Damaged artifacts are named, file by file."""

import json
import shutil
from pathlib import Path

import pytest

from runtime.artifact import REQUIRED, Artifact
from runtime.errors import ArtifactError
from runtime.model import Model
from tests.runtime.miniature import write_manifest


@pytest.fixture
def copy(small_artifact: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small_artifact, tmp_path / "copy"))


def test_the_configuration_is_read(small_artifact: Path) -> None:
    artifact = Artifact.open(small_artifact)
    assert (artifact.model, artifact.recipe_id) == ("miniature", "0123456789abcdef")
    assert (artifact.n_mels, artifact.window_s) == (80, 30.0)


@pytest.mark.parametrize("name", REQUIRED)
@pytest.mark.parametrize("damage", ["missing", "truncated", "one bit"])
def test_a_damaged_file_is_named(copy: Path, name: str, damage: str) -> None:
    file = copy / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(content if damage == "one bit" else content[:-1])
    with pytest.raises(ArtifactError, match=f"{name} is (damaged|missing)") as raised:
        Artifact.open(copy)
    assert "\n" not in str(raised.value)


def test_a_folder_without_manifest_is_no_artifact(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(ArtifactError, match=f"{folder} is no artifact"):
            Artifact.open(folder)


@pytest.mark.parametrize("changes", [{"format_version": 2}, {"target": "ggml"}, {"target": None}])
def test_another_format_is_refused(copy: Path, changes: dict[str, object]) -> None:
    write_manifest(copy, **changes)
    with pytest.raises(ArtifactError, match="reads those for onnxruntime, version 1"):
        Artifact.open(copy)


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"format_version": 1}'])
def test_a_damaged_manifest_is_named(copy: Path, content: str) -> None:
    (copy / "manifest.json").write_text(content, encoding="utf-8")
    with pytest.raises(ArtifactError, match=r"manifest\.json"):
        Artifact.open(copy)


@pytest.mark.parametrize("files", [None, [], {}, {"config.json": {}}, dict.fromkeys(REQUIRED, 1)])
def test_a_manifest_that_lists_nonsense_is_named(copy: Path, files: object) -> None:
    write_manifest(copy, files=files)
    with pytest.raises(ArtifactError, match="is damaged"):
        Artifact.open(copy)


@pytest.mark.parametrize("missing", ["n_mels", "tokens", "window_s"])
def test_an_incomplete_configuration_is_named(copy: Path, missing: str) -> None:
    config = json.loads((copy / "config.json").read_text(encoding="utf-8"))
    del config[missing]
    (copy / "config.json").write_text(json.dumps(config), encoding="utf-8")
    write_manifest(copy)
    with pytest.raises(ArtifactError, match=f"config.json is damaged: .*{missing}"):
        Artifact.open(copy)


@pytest.mark.parametrize("content", [b"", b"no graph"])
def test_a_graph_that_onnxruntime_refuses_is_named(copy: Path, content: bytes) -> None:
    (copy / "decoder.onnx").write_bytes(content)
    write_manifest(copy)
    with pytest.raises(ArtifactError, match=r"decoder\.onnx cannot be run by onnxruntime") as raised:
        Model(Artifact.open(copy), threads=1)
    assert "\n" not in str(raised.value)
