"""Whatever is wrong with a file: one line and exit code 2, or it does no harm; no traceback, no hang, no memory.

Each kind of file is changed by seed in as many ways as WHISPERFIT_HOSTILE says, 4 if it does not. What failed names its
seed; `pytest -k 'audio and 17'` with WHISPERFIT_HOSTILE=18 repeats it.
"""

# ruff: noqa: F811 - the fixtures of the command line's tests

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import pytest
import soundfile

from evaluators.sample_speech import sample_speech
from tests.hostile.mutations import mutated
from tests.search.commands import COMMAND, files, finished_run, search_arguments, write_speech  # noqa: F401

COUNT = int(os.environ.get("WHISPERFIT_HOSTILE", "4"))
MOST_S = 30.0
MOST_MB = 1000.0
SERVER = Path(__file__).with_name("fork_server.py")

# openai-whisper leaves its normaliser's files open
pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")


@dataclass(frozen=True, kw_only=True)
class Ended:
    code: int
    said: str
    seconds: float
    mb: float


Run = Callable[[list[object]], Ended]


@pytest.fixture(scope="module")
def server() -> Iterator[Run]:
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", str(SERVER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip

    def run(arguments: list[object]) -> Ended:
        assert process.stdin
        assert process.stdout
        process.stdin.write(json.dumps([str(part) for part in arguments]) + "\n")
        process.stdin.flush()
        return Ended(**json.loads(process.stdout.readline()))

    with process:
        yield run
        process.stdin.close()  # type: ignore[union-attr]


@dataclass(frozen=True, kw_only=True)
class Case:
    """`file`: to be changed. `arguments`: of the command that reads it. `changed`: what is done once it is."""

    file: Path
    arguments: list[object]
    is_text: bool = True
    changed: Callable[[], None] = lambda: None


Make = Callable[[Path, Path, Path, int], Case]
"""From the folders of files, of a finished run, of the case, and its number."""


def manifest(files: Path, _: Path, folder: Path, __: int) -> Case:
    file = write_speech(folder / "speech.jsonl")
    return Case(file=file, arguments=["baseline", "--model", files / "model.pt", "--data", file])


def audio(files: Path, _: Path, folder: Path, number: int) -> Case:
    samples, rate = soundfile.read(next(sample_speech("search").parent.rglob("*.flac")), dtype="int16")
    kind = ("wav", "flac", "ogg", "mp3")[number % 4]
    soundfile.write(folder / f"clip.{kind}", samples, rate)
    data = folder / "speech.jsonl"
    data.write_text(json.dumps({"id": "a", "audio": f"clip.{kind}", "text": "words", "language": "en"}) + "\n")
    arguments = ["baseline", "--model", files / "model.pt", "--data", data]
    return Case(file=folder / f"clip.{kind}", arguments=arguments, is_text=False)


def checkpoint(files: Path, _: Path, folder: Path, __: int) -> Case:
    file = Path(shutil.copy(files / "model.pt", folder / "model.pt"))
    return Case(file=file, arguments=["baseline", "--model", file, "--data", files / "speech.jsonl"], is_text=False)


def recipe(files: Path, run: Path, folder: Path, _: int) -> Case:
    file = Path(shutil.copy(next((run / "models").glob("*/recipe.json")), folder / "recipe.json"))
    arguments = ["baseline", "--model", files / "model.pt", "--data", files / "speech.jsonl", "--recipe", file]
    return Case(file=file, arguments=arguments)


def profile(_: Path, run: Path, folder: Path, number: int) -> Case:
    """Of a device, or the table of latencies beside it."""
    for name in ("imx8mplus.toml", "imx8mplus.csv"):
        (folder / name).write_bytes(resources.files("devices.profiles").joinpath(name).read_bytes())
    toml = folder / "imx8mplus.toml"
    file = folder / "imx8mplus.csv" if number % 2 else toml
    return Case(file=file, arguments=["reprice", run, "--device", toml, "--out", folder / "out"])


def configuration(_: Path, run: Path, folder: Path, __: int) -> Case:
    copy = shutil.copytree(run, folder / "run")
    return Case(file=copy / "config.toml", arguments=["status", copy])


def space(files: Path, _: Path, folder: Path, __: int) -> Case:
    file = folder / "space.toml"
    file.write_text("attention_bits = [16, 8]\nembedding_bits = [16, 8, 4]\nvocabulary = [0, 2000]\n")
    return Case(file=file, arguments=search_arguments(files, folder / "run", space=file, trials=1))


def study(_: Path, run: Path, folder: Path, number: int) -> Case:
    copy = shutil.copytree(run, folder / "run")
    command: list[object] = [["report", copy], ["status", copy], ["reprice", copy, "--out", folder / "out"]][number % 3]
    return Case(file=copy / "study.db", arguments=command, is_text=False)


def records(_: Path, run: Path, folder: Path, number: int) -> Case:
    """One of the texts that the study keeps, changed as a text."""
    copy, file = shutil.copytree(run, folder / "run"), folder / "record.json"
    table = ("trial_user_attributes", "study_user_attributes")[number % 2]
    key = f"{table.removesuffix('s')}_id"
    with closing(sqlite3.connect(copy / "study.db")) as connection:
        kept = connection.execute(f"select {key}, value_json from {table} order by 1").fetchall()
    row, text = kept[number // 2 % len(kept)]
    file.write_text(json.loads(text) if isinstance(json.loads(text), str) else text)

    def put_back() -> None:
        value = json.dumps(file.read_bytes().decode("utf-8", "replace"))
        with closing(sqlite3.connect(copy / "study.db")) as connection, connection:
            connection.execute(f"update {table} set value_json = ? where {key} = ?", (value, row))

    command: list[object] = [["report", copy], ["status", copy], ["resume", copy, "--trials", 2]][number % 3]
    return Case(file=file, arguments=command, changed=put_back)


def environment(_: Path, run: Path, folder: Path, number: int) -> Case:
    copy = shutil.copytree(run, folder / "run")
    command: list[object] = [["report", copy], ["resume", copy, "--trials", 2]][number % 2]
    return Case(file=copy / "environment.json", arguments=command)


def artifact(files: Path, run: Path, folder: Path, number: int) -> Case:
    """Each of its files in turn."""
    copy = shutil.copytree(sorted((run / "models").iterdir())[-1], folder / "artifact")
    found = sorted(file for file in copy.rglob("*") if file.is_file())
    file = found[number % len(found)]
    clip = next(sample_speech("search").parent.rglob("*.flac"))
    arguments = (
        ["transcribe", copy, clip] if number % 2 else ["verify", copy, "--data", files / "speech.jsonl", "--repeats", 1]
    )
    return Case(file=file, arguments=arguments, is_text=file.suffix in {".json", ".txt", ".csv"})


def training(files: Path, run: Path, folder: Path, _: int) -> Case:
    copy, file = shutil.copytree(run, folder / "run"), folder / "training.toml"
    file.write_text('[training]\nsteps = 1\nbatch_size = 2\nspeeds = [0.9, 1.1]\nlabels = "teacher"\n')
    arguments = ["recover", copy, "--trial", 1, "--method", "distill", "--training", file]
    return Case(file=file, arguments=[*arguments, "--speech", files / "confirm.jsonl"])


KINDS: dict[str, Make] = {
    make.__name__: make
    for make in (
        manifest,
        audio,
        checkpoint,
        recipe,
        profile,
        configuration,
        environment,
        space,
        study,
        records,
        artifact,
        training,
    )
}


@pytest.mark.parametrize("number", range(COUNT))
@pytest.mark.parametrize("kind", KINDS)
def test_a_hostile_file_is_refused_in_one_line_or_does_no_harm(  # noqa: PLR0917 - fixtures
    files: Path, finished_run: Path, server: Run, tmp_path: Path, kind: str, number: int
) -> None:
    case = KINDS[kind](files, finished_run, tmp_path, number)
    changed, how = mutated(case.file.read_bytes(), f"{kind}/{number}", is_text=case.is_text)
    case.file.write_bytes(changed)
    case.changed()
    ended = server(case.arguments)
    told = (
        f"{how} of {case.file.name}: exit code {ended.code} in {ended.seconds:.1f} s, {ended.mb:.0f} MB\n{ended.said}"
    )
    assert ended.code in {0, 2, 3}, told
    assert "Traceback" not in ended.said, told
    if ended.code == 2:
        assert ended.said.splitlines()[-1].startswith("whisperfit: "), told
    assert ended.seconds < MOST_S, told
    assert ended.mb < MOST_MB, told
    assert not list(tmp_path.rglob("hostile"))
