import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from common.errors import InputError
from search.configuration.config import SearchConfig
from search.records.folder import RunFolder
from search.records.study_store import StudyStore


def configuration(**changes: object) -> SearchConfig:
    return SearchConfig.build(None, {"model": "tiny.en", "device": "imx8mplus", "trials": 4} | changes)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A folder with a run of `configuration()`."""
    folder = RunFolder.create(tmp_path / "run", configuration())
    StudyStore(folder.study_file)
    return folder.path


@pytest.mark.parametrize("out", ["new", "new/and/deep", "empty"])
def test_a_run_begins_in_a_new_or_an_empty_folder(out, tmp_path):
    (tmp_path / "empty").mkdir()
    RunFolder.check_free(tmp_path / out, configuration())
    folder = RunFolder.create(tmp_path / out, configuration())
    assert folder.config() == configuration()
    StudyStore(folder.study_file)
    assert RunFolder.open(tmp_path / out) == folder


def test_the_same_run_is_to_be_resumed(run):
    with pytest.raises(InputError, match=f"this run exists; go on with it: whisperfit resume {run}"):
        RunFolder.check_free(run, configuration())


def test_what_differs_from_the_run_that_is_there_is_named(run):
    with pytest.raises(InputError, match=r"another configuration \(it differs in max_size_mb, trials\); give a new"):
        RunFolder.check_free(run, configuration(trials=5, max_size_mb=40.0))


def test_other_files_are_left_alone(tmp_path):
    (tmp_path / "thesis.tex").touch()
    for path in (tmp_path, tmp_path / "thesis.tex"):
        with pytest.raises(InputError, match="exists and is no run; give a new or an empty folder"):
            RunFolder.check_free(path, configuration())


def test_a_run_that_died_before_its_study_was_made_is_no_run(run):
    (run / "study.db").unlink()
    with pytest.raises(InputError, match="exists and is no run; give a new"):
        RunFolder.check_free(run, configuration())
    with pytest.raises(InputError, match="holds no run"):
        RunFolder.open(run)


@pytest.mark.parametrize("out", ["new", "empty", "deep/new"])
def test_a_folder_without_permission_is_refused_before_anything_is_loaded(out, tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    asked = []
    monkeypatch.setattr(os, "access", lambda path, mode: asked.append((path, mode)))
    with pytest.raises(InputError, match="cannot be written .no permission to write in") as raised:
        RunFolder.check_free(tmp_path / out, configuration())
    [(path, mode)] = asked
    assert mode == os.W_OK
    assert path == (tmp_path / "empty" if out == "empty" else tmp_path)
    assert str(path) in str(raised.value)


def test_a_folder_below_a_file_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="--out .*cannot be made, .*file is a file"):
        RunFolder.check_free(tmp_path / "file/run", configuration())
    with pytest.raises(InputError, match="--out .*cannot be written"):
        RunFolder.create(tmp_path / "file/run", configuration())


def test_environment_holds_versions_and_digests(run):
    folder = RunFolder(run)
    assert folder.environment() == {}
    folder.write_environment({"model_sha256": "abc"})
    environment = folder.environment()
    assert environment == json.loads((run / "environment.json").read_text(encoding="utf-8"))
    assert environment["model_sha256"] == "abc"
    assert environment["torch"].startswith("2.13.0")
    assert {"python", "whisperfit", "optuna", "machine", "processor"} <= environment.keys()


def test_a_run_that_cannot_be_written_is_only_read(run, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: not (path == run and mode == os.W_OK))
    assert RunFolder.open(run).path == run
    with pytest.raises(InputError, match="cannot be written .*: copy the run elsewhere"):
        RunFolder.open_to_write(run)


def test_one_process_owns_a_run(run):
    folder = RunFolder(run)
    with folder.locked():
        assert folder.owner_file.read_text() == f"{os.getpid()}\n"
        asked = subprocess.run([sys.executable, "-c", LOCKING, str(run)], capture_output=True, text=True, check=True)
        assert asked.stdout == f"{run} is in use by process {os.getpid()}: wait for it, or end it\n"
        with pytest.raises(InputError, match=f"in use by process {os.getpid()}"):
            RunFolder.check_free(run, configuration())
        assert RunFolder.open(run) == RunFolder.open_to_write(run) == folder
    assert not folder.owner_file.exists()
    with RunFolder(run).locked():
        pass


LOCKING = """
import sys
from pathlib import Path
from common.errors import InputError
from search.records.folder import RunFolder
try:
    with RunFolder(Path(sys.argv[1])).locked():
        if "die" in sys.argv:
            import os, signal
            os.kill(os.getpid(), signal.SIGKILL)
except InputError as error:
    print(error)
"""


def test_a_dead_process_owns_nothing(run):
    died = subprocess.run([sys.executable, "-c", LOCKING, str(run), "die"], check=False)
    assert died.returncode == -signal.SIGKILL
    folder = RunFolder(run)
    assert folder.owner_file.exists()
    with folder.locked():
        assert folder.owner_file.read_text() == f"{os.getpid()}\n"


def test_of_two_that_begin_at_once_one_is_refused(tmp_path):
    RunFolder.check_free(tmp_path / "run", configuration())
    with RunFolder.begun(tmp_path / "run", configuration()) as folder:
        StudyStore(folder.study_file)
        with pytest.raises(InputError, match="in use by process"), RunFolder.begun(tmp_path / "run", configuration()):
            pass
        assert folder.config() == configuration()
    with (
        pytest.raises(InputError, match="differs in seed"),
        RunFolder.begun(tmp_path / "run", configuration(seed=1)),
    ):
        pass
    assert folder.config() == configuration()


def test_the_lock_of_a_run_that_never_began_is_in_nobodys_way(tmp_path):
    (tmp_path / "run").mkdir()
    with RunFolder(tmp_path / "run").locked():
        pass
    RunFolder.check_free(tmp_path / "run", configuration())


def test_without_locks_a_run_goes_elsewhere(run):
    RunFolder(run).lock_file.mkdir()
    with (
        pytest.raises(InputError, match="run.lock cannot be locked .*: put the run elsewhere"),
        RunFolder(run).locked(),
    ):
        pass


def test_a_run_that_goes_on_with_other_packages_says_so(run, monkeypatch):
    folder = RunFolder.open(run)
    today = {"torch": "2.13.0", "openai-whisper": "20250625"}
    monkeypatch.setattr("search.records.folder.version", lambda name: today.get(name, "1.0"))
    assert folder.version_changes() == [], "before there is an environment"
    folder.write_environment({"model_sha256": "0" * 64})
    began = folder.environment()
    assert folder.version_changes() == []
    folder.record_versions()
    assert folder.environment() == began

    today["torch"] = "2.14.1"
    (line,) = folder.version_changes()
    assert line.startswith("torch 2.13.0 -> 2.14.1: ")
    folder.record_versions()
    assert folder.environment() == began | {"torch (resumed)": "2.14.1"}
    assert folder.version_changes() == [], "it is known now"

    today |= {"torch": "2.15.0", "openai-whisper": "20270101"}
    assert [line.split(":")[0] for line in folder.version_changes()] == [
        "torch 2.14.1 -> 2.15.0",
        "openai-whisper 20250625 -> 20270101",
    ]
    folder.record_versions()
    assert folder.environment() == began | {
        "torch (resumed)": "2.14.1, 2.15.0",
        "openai-whisper (resumed)": "20270101",
    }


def test_a_run_of_before_onnxruntime_was_recorded_goes_on(run):
    folder = RunFolder.open(run)
    folder.write_environment({})
    kept = {name: value for name, value in folder.environment().items() if name != "onnxruntime"}
    folder.environment_file.write_text(json.dumps(kept), encoding="utf-8")
    assert folder.version_changes() == []
