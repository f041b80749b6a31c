"""The flags of a command are the fields of its configuration: one place for an option."""

import re

import pytest
from typer.testing import CliRunner

from search.cli import app, main
from search.configuration.options import SearchOptions

WIDE = {"COLUMNS": "200", "TERM": "dumb", "NO_COLOR": "1"}


def flags_of(command: str) -> set[str]:
    return set(re.findall(r"--[a-z-]+", CliRunner().invoke(app, [command, "--help"], env=WIDE).output))


def test_search_has_a_flag_for_every_field_and_its_help():
    shown = CliRunner().invoke(app, ["search", "--help"], env=WIDE).output
    for name, field in SearchOptions.model_fields.items():
        assert f"--{name.replace('_', '-')} " in shown
        assert field.description
        assert field.description in re.sub(r"\s+", " ", shown.replace("│", " "))
    assert flags_of("search") == {f"--{name.replace('_', '-')}" for name in SearchOptions.model_fields} | {
        "--out",
        "--config",
        "--try",
        "--start-from",
        "--json",
        "--help",
    }


def test_reprice_has_the_flags_of_what_may_differ():
    assert flags_of("reprice") == {
        "--device",
        "--objective",
        "--wer-budget",
        "--confidence",
        "--min-language-accuracy",
        "--max-size-mb",
        "--max-latency-ms",
        "--max-rtf",
        "--max-memory-mb",
        "--max-occupancy",
        "--latency-confidence",
        "--out",
        "--json",
        "--help",
    }


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ("resume run --hours -3", "--hours: input should be greater than 0, but got -3.0"),
        ("resume run --hours nan", "--hours: input should be a finite number, but got nan"),
        ("resume run --trials 0", "--trials: input should be greater than or equal to 1, but got 0"),
        ("recover run --method qat --hours inf", "--hours: input should be a finite number, but got inf"),
        ("baseline --threads 0", "--threads: input should be greater than or equal to 1, but got 0"),
        ("baseline --calibration-utterances -1", "--calibration-utterances: .* but got -1"),
        ("verify DIR --repeats 0", "--repeats: .* but got 0"),
        ("profile --out x.toml --minutes -1", "--minutes: .* but got -1.0"),
        ("export --out x --calibration-utterances 0", "--calibration-utterances: .* but got 0"),
        ("search --out x --model a --device b --max-rtf nan", "--max-rtf .*finite number, but got nan"),
    ],
)
def test_a_number_out_of_range_is_refused_in_one_line(arguments, complaint, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["whisperfit", *arguments.split()])
    with pytest.raises(SystemExit) as ended:
        main()
    shown = capsys.readouterr()
    assert ended.value.code == 2
    assert re.search(complaint, shown.err)
    assert shown.err.count("\n") == 1
