"""What a search writes on stderr where nobody looks: plain lines, or JSON."""

# ruff: noqa: F811 - the fixtures of the command line's tests

import json
import subprocess
from collections.abc import Sequence

from tests.search.commands import COMMAND, files, rows, search_arguments  # noqa: F401
from tests.search.test_worker_command import EVOLUTION


def errors_of(arguments: Sequence[str]) -> str:
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, check=False).stderr


def test_every_line_of_a_json_log_is_an_event(files, tmp_path):
    out = tmp_path / "run"
    err = errors_of(
        search_arguments(files, out, trials=4, log_format="json", confirm=files / "speech.jsonl", **EVOLUTION)
    )
    assert "holds" in json.loads(err.splitlines()[-1])["event"]  # an error is one, too
    err = errors_of(search_arguments(files, out, trials=4, log_format="json", **EVOLUTION))
    events = [json.loads(line) for line in err.splitlines()]
    assert all({"timestamp", "event"} <= event.keys() for event in events)
    trials = rows(out / "trials.csv")
    ended = [event for event in events if event["event"] == "trial ends"]
    states = {(str(one["trial"]), one["state"]) for one in ended}
    assert states == {(row["trial"], row["state"]) for row in trials}
    assert all(one["memory_mb"] > 0 and one["elapsed_s"] > 0 for one in ended)
    measured = [event for event in events if event["event"] == "ends"]
    assert {"compress_s", "divergence_s", "decode_s"} <= {name for one in measured for name in one}
    [results] = [event for event in events if event["event"] == "results"]
    assert results["recommended"]["recipe_id"]


def test_workers_write_the_same(files, tmp_path):
    out = tmp_path / "run"
    errors_of(search_arguments(files, out, trials=4, workers=1, log_format="json", **EVOLUTION))
    lines = (out / "workers" / "worker-1.log").read_text(encoding="utf-8").splitlines()
    assert {"begins", "ends"} <= {json.loads(line)["event"] for line in lines}


def test_a_log_that_nobody_looks_at_has_no_control_characters(files, tmp_path):
    err = errors_of(search_arguments(files, tmp_path / "run", trials=2, **EVOLUTION))
    assert not [character for character in err if not character.isprintable() and character != "\n"]
