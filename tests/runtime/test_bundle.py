"""Bundles: files that are equal are stored once, and the runtime takes what the limits allow."""

import json
import shutil
from pathlib import Path

import pytest

from common.errors import InputError
from compression.export import bundle as written
from compression.export.bundle import BUNDLE, complete_bundle
from compression.export.whole_folder import check_replaceable, whole_folder
from runtime import bundle
from runtime.artifact import Artifact
from runtime.bundle import Limits, Point, chosen, open_within, point_folders
from runtime.errors import ArtifactError, OptionError
from tests.runtime.live.scripted import ScriptedTranscriber
from tests.runtime.miniature import write_manifest


@pytest.fixture
def two(small_artifact: Path, tmp_path: Path) -> Path:
    """A bundle of an artifact and one that differs in its configuration."""
    out = tmp_path / "bundle"
    with whole_folder(out) as folder:
        for name in ("good", "cheap"):
            shutil.copytree(small_artifact, folder / name)
        config = json.loads((folder / "cheap/config.json").read_text())
        (folder / "cheap/config.json").write_text(json.dumps(config | {"recipe_id": "cheap"}))
        write_manifest(folder / "cheap")
        complete_bundle(folder, ["good", "cheap"])
    return out


def test_runtime_and_exporter_agree() -> None:
    assert (written.BUNDLE, written.BUNDLE_VERSION) == (bundle.BUNDLE, bundle.BUNDLE_VERSION)


def test_equal_files_are_stored_once(two: Path, small_artifact: Path) -> None:
    assert sorted(file.name for file in (two / "cheap").iterdir()) == ["config.json", "manifest.json"]
    good, cheap = (Artifact.open(folder) for folder in point_folders(two))
    assert (good.recipe_id, cheap.recipe_id) == ("0123456789abcdef", "cheap")
    assert cheap.file("encoder.onnx") == two / "good/encoder.onnx"
    assert cheap.file("config.json") == two / "cheap/config.json"


def test_a_graph_and_its_weights_are_shared_together(tmp_path: Path) -> None:
    for name, weights in (("a", b"1"), ("b", b"2"), ("c", b"2")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "encoder.onnx").write_bytes(b"graph")
        (tmp_path / name / "encoder.onnx.data").write_bytes(weights)
        write_manifest(tmp_path / name)
    assert complete_bundle(tmp_path, ["a", "b", "c"]) == len(b"graph2")
    assert sorted(file.name for file in (tmp_path / "b").iterdir())[:2] == ["encoder.onnx", "encoder.onnx.data"]
    assert [file.name for file in (tmp_path / "c").iterdir()] == ["manifest.json"]


def test_a_shared_file_that_is_damaged_is_noticed(two: Path) -> None:
    (two / "good/tokens.txt.gz").write_bytes(b"")
    with pytest.raises(ArtifactError, match=r"good/tokens.txt.gz is damaged"):
        Artifact.open(two / "cheap")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is damaged"),
        ('{"format_version": 9, "points": ["a"]}', "has version 9"),
        ('{"format_version": 1, "points": ["../a"]}', "must name folders beside it"),
        ('{"format_version": 1, "points": []}', "must name folders beside it"),
    ],
)
def test_a_damaged_bundle_is_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "bundle.json").write_text(content)
    with pytest.raises(ArtifactError, match=message):
        point_folders(tmp_path)


def test_what_is_no_bundle_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("")
    with pytest.raises(InputError, match="exists and is no bundle"):
        check_replaceable(tmp_path, BUNDLE, "bundle")


def points(*factors: float) -> list[Point]:
    transcriber = ScriptedTranscriber([()])
    return [
        Point(name=f"{factor:g}", transcriber=transcriber, real_time_factor=factor, occupancy=2 * factor)
        for factor in factors
    ]


@pytest.mark.parametrize(
    ("limits", "index"),
    [
        (Limits(), 0),
        (Limits(real_time_factor=0.3), 1),
        (Limits(occupancy=0.3), 2),
        (Limits(real_time_factor=0.3, occupancy=0.3), 2),
        (Limits(real_time_factor=0.01), 2),
    ],
)
def test_the_best_that_keeps_the_limits_is_chosen(limits: Limits, index: int) -> None:
    assert chosen(points(0.5, 0.2, 0.1), limits) == index


def test_a_bundle_is_opened_within_limits_and_an_artifact_has_no_choice(two: Path, small_artifact: Path) -> None:
    assert open_within(two, Limits(), threads=1).artifact.recipe_id == "0123456789abcdef"
    assert open_within(small_artifact, Limits(), threads=1).artifact.recipe_id == "0123456789abcdef"
    with pytest.raises(OptionError, match="choose from a bundle"):
        open_within(small_artifact, Limits(real_time_factor=1), threads=1)
    with pytest.raises(OptionError, match="--max-occupancy must be above 0, but got 0"):
        open_within(two, Limits(occupancy=0), threads=1)
