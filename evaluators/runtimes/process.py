"""A runtime in a process of its own: its crash, its exit and its memory are not ours."""

import json
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from tempfile import TemporaryFile
from types import TracebackType
from typing import IO, Any, Self, cast

from common.errors import EvaluationError, InputError
from evaluators.accuracy.decoding import Hypothesis
from evaluators.runtimes.transcribe import RUNTIMES, Floats
from evaluators.speech.language import language_of
from evaluators.speech.speech_set import Utterance
from runtime.cores import usable_cores
from runtime.measure import WARM_UPS, Measurement, Plan


def check_installed(target: str) -> None:
    """Raise InputError unless artifacts of the target can be run here."""
    if target not in RUNTIMES:
        raise InputError(f"artifacts for {target} are not run here, only those for onnxruntime, {', '.join(RUNTIMES)}")
    if find_spec(RUNTIMES[target]) is None:
        raise InputError(
            f"artifacts for {target} are run by its own package: pip install {RUNTIMES[target].replace('_', '-')}"
        )


class RuntimeProcess:
    """An artifact, loaded; used in a `with` statement, at whose end the process ends.

    `load_s`: from the start of loading to a model that can transcribe. `peak_rss_bytes`: most memory that the process
    held so far, Python included. Raises EvaluationError with the runtime's last line when it fails.
    """

    def __init__(self, target: str, folder: Path, *, threads: int | None) -> None:
        """Raises InputError where the target's package is not installed."""
        check_installed(target)
        self._what = f"{folder} in {target}"
        self._errors = TemporaryFile()  # noqa: SIM115 - closed with the process
        command = [sys.executable, "-m", "evaluators.runtimes.transcribe", target, folder, threads or usable_cores()]
        self._process = subprocess.Popen(
            list(map(str, command)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            start_new_session=True,
        )
        self._requests, self._answers = cast(IO[bytes], self._process.stdin), cast(IO[bytes], self._process.stdout)
        self.peak_rss_bytes = 0
        try:
            self.load_s = float(self._answer()["seconds"])
        except EvaluationError:
            self.close()
            raise

    def __call__(self, utterance: Utterance, max_tokens: int) -> Hypothesis:
        """The transcript; the runtime has limits of its own."""
        text, _ = self.timed(utterance.samples(), language_of(utterance) or "en")
        return Hypothesis(text=text, tokens=(), ending="complete")

    def transcribe(self, samples: Floats) -> str:
        """The text of 16 kHz audio, in English."""
        return self.timed(samples, "en")[0]

    def timed(self, samples: Floats, language: str) -> tuple[str, float]:
        """The text, and the seconds from samples to text in the runtime's process."""
        request = json.dumps({"language": language, "samples": len(samples)}).encode()
        try:
            self._requests.write(request + b"\n" + samples.astype("<f4").tobytes())
            self._requests.flush()
        except BrokenPipeError:
            raise self._failure() from None
        answer = self._answer()
        return answer["text"], answer["seconds"]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        for stream in (self._requests, self._answers, self._errors):
            with suppress(BrokenPipeError):
                stream.close()

    def _answer(self) -> dict[str, Any]:
        line = self._answers.readline()
        if not line:
            raise self._failure()
        answer: dict[str, Any] = json.loads(line)
        self.peak_rss_bytes = answer["peak_rss_bytes"]
        return answer

    def _failure(self) -> EvaluationError:
        code = self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return EvaluationError(f"{self._what} failed: {lines[-1] if lines else f'exit code {code}'}")


def measure_runtime(target: str, folder: Path, clips: Sequence[Utterance], plan: Plan) -> Measurement:
    """Time an artifact in a process that does nothing else. Raises as `RuntimeProcess`."""
    with RuntimeProcess(target, folder, threads=plan.threads) as process:
        times = [_clip_s(process, clip, plan.repeats) for clip in clips]
        return Measurement(
            **asdict(plan),
            clips=len(clips),
            load_s=process.load_s,
            encoder_ms=None,
            token_ms=None,
            utterance_ms=1000 * median(times),
            audio_s=median(clip.duration_s for clip in clips),
            tokens=None,
            reference_ms=None,
            peak_rss_bytes=process.peak_rss_bytes,
        )


def _clip_s(process: RuntimeProcess, clip: Utterance, repeats: int) -> float:
    samples, language = clip.samples(), language_of(clip) or "en"
    return median([process.timed(samples, language)[1] for _ in range(WARM_UPS + repeats)][WARM_UPS:])
