"""The two command lines, what they print, and what they load."""

import ast
import json
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import soundfile
from whisper.utils import WriteSRT

from runtime import __main__ as runtime_main
from runtime.audio import read_audio
from runtime.captions import Caption, srt_entry
from runtime.formats import subtitles
from runtime.transcribe import Transcriber, Transcript
from search.cli import main as whisperfit_main

CHECKOUT = Path(__file__).parents[2]
Command = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A recording and a silent one."""
    folder = tmp_path_factory.mktemp("speech")
    noise = np.random.default_rng(0).normal(0, 0.1, 16_000)
    soundfile.write(folder / "a.wav", noise, 16_000)
    soundfile.write(folder / "b.wav", np.zeros(8000), 16_000)
    return [folder / "a.wav", folder / "b.wav"]


@pytest.fixture(params=["runtime", "whisperfit"])
def command(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """Runs either command in this process: exit code, stdout, stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        first = ["whisperfit", "transcribe"] if request.param == "whisperfit" else ["runtime"]
        monkeypatch.setattr(sys, "argv", [*first, *map(str, arguments), "--threads", "1"])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            sys.exit(runtime_main.main()) if first == ["runtime"] else whisperfit_main()
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return run


@pytest.fixture(scope="module")
def expected(small_artifact: Path, speech: list[Path]) -> list[Transcript]:
    transcriber = Transcriber.open(small_artifact, threads=1)
    return [transcriber.transcribe(read_audio(file)) for file in speech]


def test_text_is_a_line_per_file(
    command: Command, small_artifact: Path, speech: list[Path], expected: list[Transcript]
) -> None:
    code, out, err = command(small_artifact, *speech)
    assert (code, err) == (0, "")
    assert out == f"{expected[0].text}\n\n"


def test_json_is_one_object(
    command: Command, small_artifact: Path, speech: list[Path], expected: list[Transcript]
) -> None:
    code, out, err = command(small_artifact, *speech, "--format", "json")
    assert (code, err) == (0, "")
    files = [
        {"audio": str(file), "duration_s": seconds} | json.loads(json.dumps(asdict(transcript)))
        for file, seconds, transcript in zip(speech, (1.0, 0.5), expected, strict=True)
    ]
    assert json.loads(out) == {"model": "miniature", "recipe_id": "0123456789abcdef", "files": files}


def test_srt_of_one_file(
    command: Command, small_artifact: Path, speech: list[Path], expected: list[Transcript]
) -> None:
    transcript = Transcriber.open(small_artifact, threads=1).transcribe(read_audio(speech[0]), word_times=True)
    assert transcript.text == expected[0].text
    assert command(small_artifact, speech[0], "--format", "srt") == (0, subtitles(transcript, "srt"), "")
    assert command(small_artifact, speech[1], "--format", "srt") == (0, "", "")
    assert command(small_artifact, speech[1], "--format", "vtt") == (0, "WEBVTT\n\n", "")


def test_words_have_times(command: Command, small_artifact: Path, speech: list[Path]) -> None:
    code, out, _ = command(small_artifact, speech[0], "--format", "json", "--word-timestamps")
    assert code == 0
    for segment in json.loads(out)["files"][0]["segments"]:
        times = [time for word in segment["words"] for time in (word["start_s"], word["end_s"])]
        assert times == sorted(times)
        assert "".join(word["text"] for word in segment["words"]).strip() == segment["text"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{no}", "{a}"], "is no artifact"),
        (["{artifact}", "{no}.wav"], "no.wav does not exist"),
        (["{artifact}", "{a}", "--format", "xml"], "unknown format 'xml'. Known: text, json, srt"),
        (["{artifact}", "{a}", "{a}", "--format", "srt"], "one audio file at a time"),
        (["{artifact}", "{a}", "--beams", "0"], "--beams must be from 1 to 256, but got 0"),
        (["{artifact}", "{a}", "--language", "de"], "does not know the language 'de'"),
        (["{artifact}", "{a}", "--task", "sing"], "unknown task 'sing'"),
        (["{artifact}"], "give audio files, or --live"),
        (["{artifact}", "{a}", "--follow"], "--follow and --max-lag-s are for --live"),
        (["{artifact}", "{a}", "--word-timestamps"], "add --format json"),
        (["{artifact}", "{a}", "{a}", "--live"], "one stream, but got 2"),
        (["{artifact}", "{a}", "--live", "--beams", "2"], "--live decodes greedily"),
        (["{artifact}", "{a}", "--live", "--prompt", "a"], "with --live give --hotwords"),
        (["{artifact}", "{a}", "--max-rtf", "1"], "choose from a bundle"),
        (["{artifact}", "{a}", "--live", "--max-lag-s", "0.1"], "--max-lag-s must be at least 0.5, but got 0.1"),
        (["{artifact}", "{a}", "--live", "--max-lag-s", "nan"], "--max-lag-s must be at least 0.5, but got nan"),
        (["{artifact}", "{no}.wav", "--live"], "no.wav does not exist"),
        (["{artifact}", "--live", "--follow"], "--follow needs an audio file"),
        (["{artifact}", "{no}.wav", "--live", "--follow"], "no.wav cannot be read: No such file"),
        (["{artifact}", "{a}", "--live", "--language", "de"], "does not know the language 'de'"),
    ],
)
def test_bad_input_is_one_line_and_code_2(
    command: Command, small_artifact: Path, speech: list[Path], arguments: list[str], message: str
) -> None:
    names = {"artifact": small_artifact, "a": speech[0], "no": speech[0].parent / "no"}
    code, out, err = command(*(argument.format(**names) for argument in arguments))
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


@pytest.fixture
def some_bad(speech: list[Path], tmp_path: Path) -> list[Path]:
    """A good file, one without sound, one that does not exist, and a good one of no stated length."""
    (tmp_path / "text.wav").write_text("no audio " * 20)
    content = speech[0].read_bytes()
    (tmp_path / "interrupted #2 50%?.wav").write_bytes(content[:40] + bytes(4) + content[44:])
    return [speech[0], tmp_path / "text.wav", tmp_path / "no.wav", tmp_path / "interrupted #2 50%?.wav"]


def test_files_that_cannot_be_read_do_not_stop_the_others(
    command: Command, small_artifact: Path, some_bad: list[Path], expected: list[Transcript]
) -> None:
    code, out, err = command(small_artifact, *some_bad)
    assert (code, out) == (2, f"{expected[0].text}\n\n\n{expected[0].text}\n")
    text, missing, note, total = err.splitlines()
    assert text.startswith(f"runtime: audio file {some_bad[1]} does not decode")
    assert missing == f"runtime: audio file {some_bad[2]} does not exist"
    assert note.startswith(f"runtime: note: audio file {some_bad[3]}: its header states no length")
    assert total.partition(": ")[2] == "2 of 4 files cannot be read"


def test_json_has_the_error_of_each_file(
    command: Command, small_artifact: Path, some_bad: list[Path], expected: list[Transcript]
) -> None:
    code, out, _ = command(small_artifact, *some_bad, "--format", "json")
    assert code == 2
    files = json.loads(out)["files"]
    assert [file["audio"] for file in files] == list(map(str, some_bad))
    assert [file.get("text") for file in files] == [expected[0].text, None, None, expected[0].text]
    assert ["error" in file for file in files] == [False, True, True, False]
    assert files[2] == {"audio": str(some_bad[2]), "error": f"audio file {some_bad[2]} does not exist"}


def test_json_is_what_the_flag_of_the_project_prints(
    small_artifact: Path, speech: list[Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    printed = []
    for option in (["--json"], ["--format", "json"]):
        monkeypatch.setattr(sys, "argv", ["whisperfit", "transcribe", str(small_artifact), str(speech[0]), *option])
        with pytest.raises(SystemExit):
            whisperfit_main()
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1] != ""


def test_the_module_runs_alone(small_artifact: Path, speech: list[Path], expected: list[Transcript]) -> None:
    command = [sys.executable, "-m", "runtime", small_artifact, speech[0], "--threads", "1"]
    ended = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False, timeout=60)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, f"{expected[0].text}\n", "")


def test_the_package_imports_only_numpy_and_onnxruntime() -> None:
    allowed = {"numpy", "onnxruntime", "runtime", "soundfile", *sys.stdlib_module_names}
    for file in (CHECKOUT / "runtime").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert {name.partition(".")[0] for name in names} <= allowed, file


def test_srt_is_what_whisper_writes() -> None:
    times = [(0.0, 1.0005), (1.0005, 59.9996), (59.9996, 3599.9999), (3599.9999, 360_000.25)]
    captions = [Caption(start_s=a, end_s=b, lines=(f"Text {a:g}.",)) for a, b in times]
    written = StringIO()
    result = {"segments": [{"start": c.start_s, "end": c.end_s, "text": c.lines[0]} for c in captions]}
    WriteSRT("").write_result(result, file=written, options={})
    entries = [srt_entry(number, caption) for number, caption in enumerate(captions, start=1)]
    assert "".join(entries) == written.getvalue()


def listening(artifact: Path, *options: object) -> subprocess.Popen[bytes]:
    """`python -m runtime` in a process of its own, on standard input."""
    command = [sys.executable, "-m", "runtime", artifact, "--live", "--threads", "1", *options]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    return subprocess.Popen(list(map(str, command)), cwd=CHECKOUT, **pipes)  # type: ignore[call-overload]


RAW = (np.random.default_rng(0).normal(0, 0.1, 32_000) * 2**15).astype("<i2").tobytes()


def test_standard_input_is_heard_as_it_comes(small_artifact: Path) -> None:
    out, err = (process := listening(small_artifact, "--format", "json")).communicate(RAW, timeout=60)
    assert (process.returncode, err) == (0, b"")
    report = json.loads(out.splitlines()[-1])
    assert (report["event"], report["audio_s"]) == ("report", 2.0)
    assert report["peak_memory_mb"] > 50


def test_no_audio_is_one_line_and_code_2(small_artifact: Path) -> None:
    out, err = (process := listening(small_artifact)).communicate(b"", timeout=60)
    assert (process.returncode, out) == (2, b"")
    assert err.startswith(b"runtime: standard input is empty; live audio is 16 kHz, mono")
    assert err.count(b"\n") == 1


def test_an_interrupt_ends_it_with_its_last_words(small_artifact: Path) -> None:
    process = listening(small_artifact, "--format", "json")
    assert process.stdin
    assert process.stdout
    process.stdin.write(RAW)
    process.stdin.flush()
    first = process.stdout.readline()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, b"")
    assert json.loads((first + out).splitlines()[-1])["event"] == "report"
