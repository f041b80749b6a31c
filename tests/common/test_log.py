"""What a process writes on stderr, for a user and for a program."""

import json
from collections.abc import Iterator
from datetime import datetime

import pytest

from common.log import note, tell, write_log, writes_json


@pytest.fixture(autouse=True)
def text_again() -> Iterator[None]:
    yield
    write_log(as_json=False, details=False)


def test_a_user_is_told_lines_as_they_are(capsys):
    tell("Loading /a/very/long/path [draft]")
    note("trial begins", trial=3)
    assert capsys.readouterr().err == "Loading /a/very/long/path [draft]\n"
    assert not writes_json()


def test_details_have_a_time_and_figures_by_name(capsys):
    write_log(as_json=False, details=True)
    tell("Loading")
    note("ends", trial=3, problem=None, seconds=1.5)
    told, noted = capsys.readouterr().err.splitlines()
    time, rest = noted.split(" ", 1)
    assert (told, rest) == ("Loading", "ends trial=3 seconds=1.5")
    assert datetime.fromisoformat(time).tzinfo


def test_a_program_gets_one_object_a_line(capsys):
    write_log(as_json=True, details=True)
    tell("Loading a model\nof two lines")
    note("ends", trial=3, problem=None, seconds=1.5)
    told, noted = (json.loads(line) for line in capsys.readouterr().err.splitlines())
    assert told["event"] == "Loading a model\nof two lines"
    assert datetime.fromisoformat(noted.pop("timestamp")).tzinfo
    assert noted == {"event": "ends", "trial": 3, "seconds": 1.5}
    assert writes_json()
