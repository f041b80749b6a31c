"""An artifact on the device's instruction set, emulated, and in 1 GB: see benchmarks/speed/aarch64.py."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import soundfile

from benchmarks.speed import aarch64
from benchmarks.speed.aarch64 import CORES, CPUS, EMULATOR, Job, Outcome, largest_difference, run_emulated, run_native
from common.errors import InputError
from evaluators.speech.audio import read_audio
from evaluators.speech.speech_set import load_speech_set
from runtime.transcribe import Transcriber

BOARD_MB = 1000
MOST_RSS_MB = 200
"""For 10 s of speech, Python included; measured: 160 to 172 (docs/transcribing.md)."""

OUTCOME = Outcome(machine="", texts=("one", ""), log_probabilities=(-0.25, None), seconds=1.0)


@pytest.fixture(scope="module")
def root() -> Path:
    """The arm64 system, which tests do not make: that needs a network."""
    folder = Path(os.environ.get("WHISPERFIT_AARCH64_ROOT") or aarch64.default_root()).absolute()
    if shutil.which(EMULATOR) is None:
        pytest.skip(f"needs {EMULATOR}: apt-get install qemu-user")
    if not folder.is_dir():
        pytest.skip(f"needs the arm64 system in {folder}: benchmarks/speed/aarch64.py makes it")
    return folder


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The sample's shortest and longest clip, 3 and 10 s, as WAV: nothing else can be read without soundfile."""
    folder = tmp_path_factory.mktemp("clips")
    utterances = sorted(load_speech_set(Path("sample")).utterances, key=lambda utterance: utterance.duration_s)
    files = [folder / f"{name}.wav" for name in ("shortest", "longest")]
    for file, utterance in zip(files, (utterances[0], utterances[-1]), strict=True):
        samples, rate = soundfile.read(utterance.audio)
        soundfile.write(file, samples, rate, subtype="PCM_16")
    return files


@pytest.mark.device_isa
def test_the_text_on_the_device_is_the_text_here(artifact: Path, clips: list[Path], root: Path) -> None:
    job = Job(artifact=artifact, audio=(clips[0],))
    emulated, native = run_emulated(job, root, "cortex-a53"), run_native(job)
    assert emulated.texts == native.texts
    difference = largest_difference(emulated, native)
    assert difference is not None
    # 1e-6 with float activations; 8-bit ones fall on the other side of a rounding here and there: 3e-3
    assert difference < 0.01


def test_a_gigabyte_is_enough(artifact: Path, clips: list[Path]) -> None:
    outcome = run_native(Job(artifact=artifact, audio=(clips[1],)), limit_mb=BOARD_MB)
    here = Transcriber.open(artifact, threads=CORES).transcribe(read_audio(clips[1]))
    assert outcome.texts == (here.text,)
    assert outcome.peak_rss_mb is not None
    assert outcome.peak_rss_mb < MOST_RSS_MB


def test_the_limit_holds(small_artifact: Path, clips: list[Path]) -> None:
    """Python starts in 100 MB, but numpy and onnxruntime cannot be loaded."""
    with pytest.raises(InputError, match="the runtime failed within 100 MB"):
        run_native(Job(artifact=small_artifact, audio=(clips[0],)), limit_mb=100)


def test_what_the_runtime_says_is_passed_on(tmp_path: Path, clips: list[Path]) -> None:
    with pytest.raises(InputError, match=r"natively, exit code 2: .* is no artifact: it holds no manifest\.json"):
        run_native(Job(artifact=tmp_path, audio=(clips[0],)))


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        ((-0.25, None), 0),
        ((-0.75, None), 0.5),
        ((None, None), None),
        ((-0.25, -0.25), None),
        ((-0.25,), None),
    ],
)
def test_log_probabilities_are_compared_segment_by_segment(
    other: tuple[float | None, ...], expected: float | None
) -> None:
    assert largest_difference(OUTCOME, replace(OUTCOME, log_probabilities=other)) == expected


@pytest.mark.parametrize(("texts", "code"), [(("one", ""), 0), (("one", "two"), 1)])
def test_other_texts_are_a_failure(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, texts: tuple[str, ...], code: int
) -> None:
    monkeypatch.setattr(aarch64, "_need", lambda *_: None)
    monkeypatch.setattr(aarch64, "run_emulated", lambda *_: OUTCOME)
    monkeypatch.setattr(aarch64, "run_native", lambda *_: replace(OUTCOME, texts=texts))
    job = Job(artifact=tmp_path, audio=())
    assert aarch64.compared(job, tmp_path, "cortex-a53", as_json=True) == code


@pytest.mark.parametrize("cpu", CPUS)
def test_the_emulated_machine_has_four_cores_of_its_kind(tmp_path: Path, cpu: str) -> None:
    (tmp_path / "usr" / "bin").mkdir(parents=True)
    aarch64._describe_machine(tmp_path, cpu)
    view = tmp_path / "cpus" / cpu
    lines = (view / "proc/cpuinfo").read_text().splitlines()
    cores = [line for line in lines if line.startswith("processor")]
    assert [int(line.split(":")[1]) for line in cores] == list(range(CORES))
    assert (view / "sys/devices/system/cpu/online").read_text() == f"0-{CORES - 1}\n"
    # Arm's Cortex-A76 is the first of the three with SDOT, which Linux calls asimddp
    assert all("asimddp" in line for line in lines if "Features" in line) == (cpu == "cortex-a76")
    assert (view / "usr/bin").is_dir()
