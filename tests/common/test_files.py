import hashlib
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import InputError
from common.files import cache_folder, expanded, sha256_of_file, sha256_of_text, write_text_whole


def names(folder: Path) -> set[str]:
    return {entry.name for entry in folder.iterdir()}


def test_new_file_holds_the_text_with_its_line_ends_as_they_are(tmp_path):
    write_text_whole(tmp_path / "a.csv", "é,1\n2\r\n")
    assert (tmp_path / "a.csv").read_bytes() == "é,1\n2\r\n".encode()
    assert names(tmp_path) == {"a.csv"}


def test_everyone_may_read_the_file(tmp_path):
    write_text_whole(tmp_path / "a.csv", "text")
    assert (tmp_path / "a.csv").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failure_leaves_the_old_file_and_nothing_else(step, tmp_path, monkeypatch):
    write_text_whole(tmp_path / "a.csv", "old")

    def disk_full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, step, disk_full)
    with pytest.raises(OSError, match="No space left"):
        write_text_whole(tmp_path / "a.csv", "new")
    assert (tmp_path / "a.csv").read_text(encoding="utf-8") == "old"
    assert names(tmp_path) == {"a.csv"}


def test_a_missing_folder_is_an_error(tmp_path):
    with pytest.raises(OSError, match="missing"):
        write_text_whole(tmp_path / "missing" / "a.csv", "text")


@given(text=st.text())
def test_digest_of_text_is_hashlibs(text):
    assert sha256_of_text(text) == hashlib.sha256(text.encode()).hexdigest()


def test_digest_of_file_is_that_of_its_bytes(tmp_path):
    content = os.urandom(1 << 20) + b"\r\n\0"
    (tmp_path / "blob").write_bytes(content)
    assert sha256_of_file(tmp_path / "blob") == hashlib.sha256(content).hexdigest()


def test_digest_of_nothing_is_the_published_one():
    assert sha256_of_text("") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"  # FIPS 180-4


def test_cache_lies_under_the_first_of_its_three_roots(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("WHISPERFIT_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert cache_folder("mel") == tmp_path / "home/.cache/whisperfit/mel"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder("mel") == tmp_path / "xdg/whisperfit/mel"
    monkeypatch.setenv("WHISPERFIT_CACHE", str(tmp_path / "own"))
    assert cache_folder("mel") == tmp_path / "own/mel"
    assert (tmp_path / "own/mel").is_dir()


def homeless(monkeypatch):
    """As a container runs a user whom /etc/passwd does not know, with an empty environment."""

    def unknown(user):
        raise KeyError(user)

    for name in ("HOME", "WHISPERFIT_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", unknown)


def test_a_cache_that_is_given_needs_no_home(tmp_path, monkeypatch):
    homeless(monkeypatch)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="no home folder; name one in WHISPERFIT_CACHE"):
        cache_folder("mel")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder("mel") == tmp_path / "xdg/whisperfit/mel"
    monkeypatch.setenv("WHISPERFIT_CACHE", str(tmp_path / "own"))
    assert cache_folder("mel") == tmp_path / "own/mel"
    assert {entry.name for entry in tmp_path.iterdir()} == {"own", "xdg"}


def test_a_home_that_nobody_knows_is_one_line(monkeypatch):
    homeless(monkeypatch)
    for path in ("~", "~/speech", "~nobody-of-this-name/speech"):
        with pytest.raises(InputError, match=f"^{path}: no such home folder is known; write the whole path$"):
            expanded(Path(path))
    assert expanded(Path("a/~/b")) == Path("a/~/b")


def test_a_cache_that_cannot_be_used_is_one_line(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("WHISPERFIT_CACHE", str(tmp_path / "file"))
    with pytest.raises(InputError, match=r"the cache .*file/mel cannot be made .*: name another folder"):
        cache_folder("mel")
