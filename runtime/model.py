"""An artifact's two ONNX graphs behind a small interface."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from runtime.artifact import Artifact
from runtime.audio import Floats
from runtime.cores import usable_cores
from runtime.errors import ArtifactError

Ids = npt.NDArray[np.int64]

QUERY = "audio_query"
"""The decoder's output (1, tokens, width): the last layer's queries to the audio."""

_LOAD_ERRORS = (
    ort_errors.Fail,
    ort_errors.InvalidArgument,
    ort_errors.InvalidGraph,
    ort_errors.InvalidProtobuf,
    ort_errors.NoSuchFile,
    ort_errors.NotImplemented,
    ort_errors.RuntimeException,
)


OLDEST = (1, 23)
"""The first onnxruntime that computes every artifact; 1.22 loads weights of 8 bits in blocks and computes nothing with
them."""


class Model:
    """The encoder and the decoder of an artifact, on the CPU."""

    def __init__(self, artifact: Artifact, *, threads: int | None = None) -> None:
        """`threads`: default one per usable core. Raises ArtifactError when onnxruntime cannot run the graphs."""
        _check_version(ort.__version__)
        self._encoder = _session(artifact.file("encoder.onnx"), threads)
        self._decoder = _session(artifact.file("decoder.onnx"), threads)
        shapes = {value.name: value.shape for value in self._decoder.get_inputs()}
        pasts = [name for name in shapes if name.startswith("past_")]
        self._start = {name: np.empty((1, shapes[name][1], 0, shapes[name][3]), np.float32) for name in pasts}

    def encode(self, mel: Floats) -> "WindowText":
        """Hear a window (n_mels, frames), an even number of frames up to 3000; no text has been seen yet."""
        names = [output.name for output in self._encoder.get_outputs()]
        values = self._encoder.run_with_ort_values(names, {"mel": _value(mel[None])})
        past = {name: _value(empty) for name, empty in self._start.items()}
        return WindowText(decoder=self._decoder, audio=dict(zip(names, values, strict=True)), past=past)


@dataclass(frozen=True, kw_only=True)
class WindowText:
    """One window of audio and, for each row of a batch, the text that the decoder has seen after it. Never changes.

    `audio`: keys and values of cross-attention, computed once per window. `past`: those of the text, (batch, heads,
    seen, width), as onnxruntime's own values, which cost no copy between steps.
    """

    decoder: ort.InferenceSession = field(repr=False)
    audio: Mapping[str, ort.OrtValue] = field(repr=False)
    past: Mapping[str, ort.OrtValue] = field(repr=False)

    def step(self, tokens: Ids) -> "tuple[Floats, WindowText]":
        """Show every row its next tokens (batch, new): logits (batch, vocabulary) after the last, and what is seen."""
        names = ["logits", *(name.removeprefix("past_") for name in self.past)]
        values = self.decoder.run_with_ort_values(names, {"tokens": _value(tokens), **self.audio, **self.past})
        past = dict(zip(self.past, values[1:], strict=True))
        return values[0].numpy(), WindowText(decoder=self.decoder, audio=self.audio, past=past)

    def attention(self, tokens: Sequence[int]) -> Floats | None:
        """The mean of `head_attention`'s heads, (tokens, positions); None where that is None."""
        heads = self.head_attention(tokens)
        return None if heads is None else heads.mean(axis=0)

    def head_attention(self, tokens: Sequence[int]) -> Floats | None:
        """Where the decoder's last layer listens after each of the tokens of a text from its very beginning.

        (heads, tokens, positions). None for artifacts whose decoder has no output `audio_query`.
        """
        if QUERY not in [output.name for output in self.decoder.get_outputs()]:
            return None
        past = {name: _value(value.numpy()[:1, :, :0]) for name, value in self.past.items()}
        inputs = {"tokens": _value(np.array([tokens])), **self.audio, **past}
        (query,) = self.decoder.run_with_ort_values([QUERY], inputs)
        keys = self.audio[f"cross_key_{len(self.past) // 2 - 1}"].numpy()[0]
        heads, _, width = keys.shape
        queries = query.numpy()[0].reshape(-1, heads, width).transpose(1, 0, 2)
        scores = queries @ keys.transpose(0, 2, 1) / np.sqrt(np.float32(width))
        weights = np.exp(scores - scores.max(axis=2, keepdims=True))
        return weights / weights.sum(axis=2, keepdims=True)

    def rows(self, rows: Sequence[int]) -> "WindowText":
        """The given rows of the batch, in that order, some perhaps several times."""
        batch = next(iter(self.past.values())).shape()[0]
        if list(rows) == list(range(batch)):
            return self
        past = {name: _value(value.numpy()[list(rows)]) for name, value in self.past.items()}
        return WindowText(decoder=self.decoder, audio=self.audio, past=past)


def _value(array: npt.NDArray[np.float32] | Ids) -> ort.OrtValue:
    return ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array))


def _check_version(installed: str) -> None:
    """Raise ArtifactError where onnxruntime is too old."""
    if tuple(int(part) for part in installed.split(".")[:2]) < OLDEST:
        needed = ".".join(map(str, OLDEST))
        raise ArtifactError(f"onnxruntime {installed} is too old: artifacts need {needed} or later")


def _session(file: Path, threads: int | None) -> ort.InferenceSession:
    """Options by measurement: see docs/transcribing.md."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads or usable_cores()
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # a plan for every length of the text would be kept and never used again
    options.enable_mem_pattern = False
    for key, value in session_entries(saturates=_saturates()).items():
        options.add_session_config_entry(key, value)
    try:
        return ort.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    except _LOAD_ERRORS as error:
        reason = " ".join(str(error).split())
        raise ArtifactError(f"{file} cannot be run by onnxruntime {ort.__version__}: {reason}") from error


def session_entries(*, saturates: bool) -> dict[str, str]:
    """The entries of a session's configuration, by key; `saturates`: see `_saturates`."""
    return {
        # threads that spin take the cores from whatever else runs
        "session.intra_op.allow_spinning": "0",
        "session.x64quantprecision": "1" if saturates else "0",
    }


def _saturates() -> bool:
    """Whether products of uint8 and int8 might saturate at 16 bits: on x86 without VNNI.

    onnxruntime's slower exact products are then asked for; they take twice the time. Other processors ignore it.
    """
    try:
        return "_vnni" not in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return True
