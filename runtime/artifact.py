"""The artifact's folder: every file checked against the manifest, the configuration read."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runtime.errors import ArtifactError
from runtime.tokens import SpecialTokens, Vocabulary

TARGET, FORMAT_VERSION = "onnxruntime", 1
REQUIRED = ("config.json", "tokens.txt.gz", "encoder.onnx", "decoder.onnx")


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """What the folder says about its model. `window_s`: the shortest encoder window; `n_text_ctx`: text positions.

    `language`: the one that its checkpoint decoded in; None: the one that is detected. `alignment_heads`: of the last
    decoder layer, those that follow the timing of words; none: all of them do, as far as one knows. `elsewhere`: files
    that another artifact of the same bundle holds.
    """

    folder: Path
    model: str
    recipe_id: str
    n_mels: int
    n_text_ctx: int
    window_s: float
    vocabulary: Vocabulary
    elsewhere: Mapping[str, Path] = field(default_factory=dict)
    language: str | None = None
    alignment_heads: tuple[int, ...] = ()

    def file(self, name: str) -> Path:
        """Where a file of the artifact lies."""
        return self.elsewhere.get(name, self.folder / name)

    @classmethod
    def open(cls, folder: Path, *, target: str = TARGET, required: Sequence[str] = REQUIRED) -> "Artifact":
        """Check and read an exported folder; `target`: the runtime that it is for, `required`: files that it must have.

        Raises ArtifactError when the folder or a file is missing, of another format or version, or when a file's
        SHA-256 is not the manifest's.
        """
        manifest_file = folder / "manifest.json"
        if not manifest_file.is_file():
            raise ArtifactError(
                f"{folder} is no artifact: it holds no manifest.json. Give a folder that `whisperfit export` wrote"
            )
        manifest = _read_json(manifest_file)
        _check_format(manifest_file, manifest, target)
        files = _checked_files(folder, manifest, required)
        config_file = files["config.json"]
        config = _read_json(config_file)
        try:
            return cls(
                folder=folder,
                model=str(config["model"]),
                recipe_id=str(config["recipe_id"]),
                n_mels=int(config["n_mels"]),
                n_text_ctx=int(config["n_text_ctx"]),
                window_s=float(config["window_s"]),
                vocabulary=Vocabulary.read(files["tokens.txt.gz"], _special_tokens(config["tokens"])),
                elsewhere={name: file for name, file in files.items() if file.parent != folder},
                language=config.get("language"),
                alignment_heads=tuple(config.get("alignment_heads", ())),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ArtifactError(f"{config_file} is damaged: {type(error).__name__} {error}") from error


def _read_json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ArtifactError(f"{file} cannot be read: {error}") from error


def _check_format(file: Path, manifest: Any, target: str) -> None:
    stated = (manifest.get("target"), manifest.get("format_version")) if isinstance(manifest, dict) else (None, None)
    if stated != (target, FORMAT_VERSION):
        raise ArtifactError(
            f"{file} describes an artifact for {stated[0]}, version {stated[1]}, but this runtime reads those for "
            f"{target}, version {FORMAT_VERSION}: use the runtime that came with its whisperfit, or export it again"
        )


def _checked_files(folder: Path, manifest: dict[str, Any], required: Sequence[str]) -> dict[str, Path]:
    """Where each file lies: in the folder, or, as a bundle's manifest says by `in`, in another one beside it."""
    files = manifest.get("files")
    if not isinstance(files, dict) or not set(required) <= set(files):
        raise ArtifactError(f"{folder / 'manifest.json'} is damaged: it must list {', '.join(required)}")
    found: dict[str, Path] = {}
    for name, stated in files.items():
        beside = stated.get("in") if isinstance(stated, dict) else None
        file = found[name] = folder / name if beside is None else folder.parent / Path(str(beside)).name / name
        try:
            with file.open("rb") as handle:
                digest = hashlib.file_digest(handle, "sha256").hexdigest()
        except OSError as error:
            raise ArtifactError(f"{file} is missing or cannot be read: copy the whole folder again") from error
        if not isinstance(stated, dict) or digest != stated.get("sha256"):
            raise ArtifactError(f"{file} is damaged: its SHA-256 is not the manifest's. Copy the whole folder again")
    return found


def _special_tokens(tokens: dict[str, Any]) -> SpecialTokens:
    return SpecialTokens(
        start=int(tokens["start"]),
        end=int(tokens["end"]),
        no_timestamps=int(tokens["no_timestamps"]),
        no_speech=tokens["no_speech"],
        transcribe=tokens["transcribe"],
        translate=tokens["translate"],
        suppressed=tuple(tokens["suppressed"]),
        begin_suppressed=tuple(tokens["begin_suppressed"]),
        languages=tokens["languages"],
        start_of_previous=tokens.get("start_of_previous"),
    )
