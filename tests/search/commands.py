"""What the tests of the command line share: a Whisper with random weights, some clips, and the commands themselves."""

import csv
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import soundfile
import torch
import whisper

from compression.recipe.dimensions import Dimensions
from compression.whisper.load import load_model
from evaluators.accuracy.sounds import BATTERY
from evaluators.sample_speech import sample_speech
from search.cli import main
from search.report.group_and_silence_notes import SOUNDS
from tests.evaluators.conftest import MULTILINGUAL_VOCABULARY, talkative
from tests.networks import random_network, save_checkpoint
from tests.strategies import small_dimensions

DIMENSIONS = small_dimensions(layers=1, state=64, heads=1, vocabulary=51864)
CLIPS = 4
KINDS = ("insertions", "deletions", "substitutions")
COMMAND = [sys.executable, "-c", "from search.cli import main; main()"]


@dataclass(frozen=True, kw_only=True)
class Ended:
    code: int
    out: str
    err: str


Whisperfit = Callable[..., Ended]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with files_of_a_whisper(tmp_path_factory.mktemp("files"), DIMENSIONS) as folder:
        yield folder


@pytest.fixture(scope="module")
def multilingual_files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The same of a multilingual Whisper, which detects in each clip the language that its line states."""
    dimensions = replace(DIMENSIONS, n_vocab=MULTILINGUAL_VOCABULARY)
    with files_of_a_whisper(tmp_path_factory.mktemp("multilingual"), dimensions) as folder:
        network = load_model(str(folder / "model.pt")).network
        for name in ("speech.jsonl", "confirm.jsonl"):
            lines = [json.loads(line) for line in (folder / name).read_text(encoding="utf-8").splitlines()]
            for line in lines:
                line["language"] = detected_by_whisper(network, folder / line["audio"])
            (folder / name).write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        yield folder


def detected_by_whisper(network: whisper.Whisper, audio: Path) -> str:
    samples, rate = soundfile.read(audio, dtype="float32")
    assert rate == whisper.audio.SAMPLE_RATE
    mel = whisper.log_mel_spectrogram(whisper.pad_or_trim(samples), network.dims.n_mels)
    _, chances = whisper.detect_language(network, mel)
    return max(chances, key=chances.__getitem__)


@contextmanager
def files_of_a_whisper(folder: Path, dimensions: Dimensions) -> Iterator[Path]:
    """The folder with `model.pt`, `speech.jsonl` and `confirm.jsonl`, and a cache that the tests share.

    Artifacts are tried on silence and one other sound: a network with random weights talks to each for seconds.
    """
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = talkative(random_network(dimensions), seed=0)
    save_checkpoint(network, folder / "model.pt")
    write_speech(folder / "speech.jsonl")
    write_other_speech(folder / "confirm.jsonl")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WHISPERFIT_CACHE", str(folder / "cache"))
        patch.setenv("OMP_NUM_THREADS", "1")
        for name in sorted(BATTERY.keys() - {"silence", "loud hum"}):
            if name in SOUNDS.values():
                patch.setitem(BATTERY, name, BATTERY["silence"])
            else:
                patch.delitem(BATTERY, name)
        yield folder


def sample_lines() -> list[dict[str, object]]:
    manifest = sample_speech("search")
    lines = [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()[:CLIPS]]
    return [line | {"audio": str(manifest.parent / line["audio"])} for line in lines]


def write_speech(file: Path, *changes: dict[str, object]) -> Path:
    """The sample's first lines, the last of them with changes."""
    *lines, last = sample_lines()
    for change in changes:
        last |= change
    file.write_text("".join(json.dumps(line) + "\n" for line in (*lines, last)), encoding="utf-8")
    return file


def write_other_speech(file: Path) -> Path:
    """The same with the last sample of each recording changed by its last bit: other recordings that sound the same."""
    lines = sample_lines()
    for line in lines:
        samples, rate = soundfile.read(line["audio"], dtype="int16")
        samples[-1] ^= 1
        line["audio"] = f"{file.stem}-{line['id']}.wav"
        soundfile.write(file.parent / str(line["audio"]), samples, rate)
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return file


@pytest.fixture
def whisperfit(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Whisperfit:
    """Runs the command in this process."""

    def run(*arguments: object) -> Ended:
        monkeypatch.setattr(sys, "argv", ["whisperfit", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as exited:
            main()
        captured = capsys.readouterr()
        return Ended(code=int(exited.value.code or 0), out=captured.out, err=captured.err)

    return run


def search_arguments(files: Path, out: Path, **changes: object) -> list[str]:
    options: dict[str, object] = {
        "model": files / "model.pt",
        "device": "imx8mplus",
        "data": files / "speech.jsonl",
        "wer-budget": "+10%",
        "engine": "steps",  # which scores every recipe
        "trials": 4,
        "threads": 1,
        "out": out,
    } | {name.replace("_", "-"): value for name, value in changes.items()}
    return ["search", *(str(part) for name, value in options.items() for part in (f"--{name}", value))]


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="", encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


def settled(row: dict[str, str]) -> dict[str, str]:
    """What later trials, and exporting at the end, cannot change."""
    return {name: value for name, value in row.items() if name not in ("recommended", "note", "flops_fvcore_g")}


@pytest.fixture(scope="module")
def finished_run(files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    assert run_command([*search_arguments(files, out, confirm=files / "confirm.jsonl"), "--json"]) == 0
    return out


def run_command(arguments: list[str]) -> int:
    """The command in this process; its exit code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["whisperfit", *arguments])
        with pytest.raises(SystemExit) as exited:
            main()
    return int(exited.value.code or 0)


@pytest.fixture(autouse=True)
def interruptible() -> Iterator[None]:
    """A shell's background jobs ignore SIGINT, nohup's SIGHUP, and so do their children: undo that in such a place."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler), signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    for number, handler in zip((signal.SIGINT, signal.SIGHUP), before, strict=True):
        signal.signal(number, handler)


def start(arguments: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen([*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def wait_for_rows(process: subprocess.Popen[bytes], file: Path, count: int) -> None:
    deadline = time.monotonic() + 300
    while not (file.exists() and len(rows(file)) >= count):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def refused(ended: Ended, *complaints: str) -> None:
    """Exit code 2, nothing on stdout, and one line of error after what was going on."""
    assert (ended.code, ended.out) == (2, "")
    *progress, last = ended.err.splitlines()
    assert last.startswith("whisperfit: ")
    assert all(complaint in last for complaint in complaints), last
    assert all(line.startswith(("Loading", "Calibrating", "Profiling", "Exporting", "Verifying")) for line in progress)
