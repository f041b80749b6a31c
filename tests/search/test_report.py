import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from math import log
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console
from scipy.stats import norm

from search.budget import CostLimits
from search.comparison import compare, problems
from search.outcome import Outcome
from search.report import render_report, varying_genes, write_report
from search.report.figures import convergence_figure, front_figure
from search.results import trials_frame
from search.summary import outcome_values, print_summary
from search.trial import UNEVALUATED


@pytest.fixture
def facts(dimensions):
    return {
        "config_toml": 'model = "tiny.en"\n',
        "environment": {"torch": "2.13.0"},
        "dimensions": dimensions,
        "generated": "2026-01-05 07:30",
    }


class _Page(HTMLParser):
    """Every tag that is opened, the text outside scripts, the addresses that a browser would load."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loads: list[str] = []
        self.words = ""

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.loads += [value for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data):
        if self.tags[-1:] != ["script"]:
            self.words += data


def _read(html: str) -> _Page:
    page = _Page()
    page.feed(re.sub(r"<script.*?</script>", "", html, flags=re.DOTALL))
    return page


def _traces(figure_html: str) -> dict[str, dict]:
    """By name, the traces that plotly was given."""
    start = figure_html.index("[", figure_html.index("Plotly.newPlot("))
    traces, _ = json.JSONDecoder().raw_decode(figure_html[start:])
    return {trace["name"]: trace for trace in traces}


def test_page_without_plotly_s_part_is_the_golden_one(outcome, facts, monkeypatch, check_golden):
    for name in ("get_plotlyjs", "front_figure", "convergence_figure", "sensitivity_figure"):
        monkeypatch.setattr(f"search.report.{name}", lambda *_, name=name: name)
    check_golden("report.html", render_report(outcome, **facts))


def test_page_loads_nothing_and_is_reproducible(outcome, facts, tmp_path):
    html = render_report(outcome, **facts)
    assert "Plotly.newPlot" in html
    assert _read(html).loads == []
    write_report(tmp_path / "report.html", outcome, **facts)
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == html


def test_text_from_outside_is_escaped(outcome, facts):
    hostile = "<img src=x onerror=alert(1)></script><script>"
    trials = (*outcome.trials[:-1], replace(outcome.trials[-1], note=hostile))
    page = render_report(
        replace(outcome, device=hostile, speech=hostile, trials=trials),
        **facts | {"config_toml": hostile, "environment": {hostile: hostile}},
    )
    plain = render_report(outcome, **facts)
    assert "<img" not in _read(page).tags
    assert page.count("<script") == plain.count("<script")
    assert "&lt;img src=x onerror=alert(1)&gt;" in page


def test_front_figure_shows_each_trial_once_under_its_kind(outcome: Outcome):
    traces = _traces(front_figure(outcome))
    numbers = {name: [int(re.search(r"trial (\d+)", text)[1]) for text in t["text"]] for name, t in traces.items()}
    assert numbers == {
        "stopped early, WER so far": [5],
        "over a limit": [4],
        "within every limit": [3],
        "front": [2, 1, 0],
        "baseline": [0],
        "pick": [1],
    }
    front = traces["front"]
    assert front["x"] == [0.3, 0.4, 1.0]
    assert front["y"] == pytest.approx([5.4, 5.1, 5.0])
    assert front["line"]["shape"] == "hv"
    assert front["error_y"]["array"] == pytest.approx([0.3 * y for y in front["y"]])
    assert front["error_y"]["arrayminus"] == pytest.approx([0.2 * y for y in front["y"]])


def test_convergence_never_rises_and_ends_at_the_cheapest(outcome: Outcome):
    best = _traces(convergence_figure(outcome))["best so far"]
    assert best["x"] == [0, 1, 2, 3, 7]
    assert best["y"] == [1.0, 0.4, 0.3, 0.3, 0.3]


def test_sensitivity_shows_genes_that_vary_among_complete_trials(outcome, dimensions):
    genes = varying_genes(outcome, trials_frame(outcome, dimensions))
    assert len(genes) == 5
    assert set(genes.columns) == {
        "wer",
        "mean weight bits",
        "embedding bits",
        "heads",
        "encoder layers",
        "FFN channels",
    }
    strength = [abs(genes["wer"].rank().corr(genes[name].rank())) for name in genes.columns[1:]]
    assert strength == sorted(strength, reverse=True)
    few = replace(outcome, trials=outcome.trials[:4])
    assert list(varying_genes(few, trials_frame(few, dimensions)).columns) == ["wer"]


def test_page_of_a_run_with_only_a_baseline(outcome, facts):
    baseline = outcome.trials[0]
    only = replace(outcome, trials=(baseline,), front=(baseline,), recommended=baseline, confirmations={})
    page = _read(render_report(only, **facts))
    assert "The pick is the original model" in page.words
    assert "Sensitivity" not in page.words


def test_comparison_is_arithmetic_on_the_two_trials(outcome):
    rows = {row.label: row for row in compare(outcome)}
    assert rows["Size"].change == "60.0 % smaller"
    assert rows["FLOPs"].change == "2.50x less"
    assert (str(rows["Latency"].pick), rows["Latency"].remark) == ("480 ms (400 to 600)", "estimated, 90 % interval")
    assert (str(rows["Energy"].pick), rows["Energy"].remark) == ("360 mJ", "estimated, 240 mJ above idle")
    assert (str(rows["CPU occupancy"].baseline), str(rows["CPU occupancy"].pick)) == ("6.0 %", "2.4 %")
    assert (str(rows["WER"].pick), rows["WER"].change) == ("5.10 % (4.08 to 6.63)", "+0.10 points")
    assert rows["WER"].note == "budget 5.50 %"
    assert (str(rows["WER, confirmed"].pick), rows["WER, confirmed"].note) == ("6.20 % (5.58 to 7.44)", "within budget")
    assert "WER, confirmed" not in {row.label for row in compare(replace(outcome, confirm_speech=None))}


def test_the_probability_of_a_time_limit_is_shown_where_there_is_one(outcome: Outcome, facts):
    label = "P(within time limit)"
    assert label not in {row.label for row in compare(outcome)}
    limits = CostLimits(max_memory_mb=512, max_latency_ms=490, latency_confidence=0.9)
    limited = replace(outcome, limits=limits)
    row = next(row for row in compare(limited) if row.label == label)
    low, high = log(400), log(600)
    deviation = (high - low) / 2 / norm.ppf(0.95)
    expected = norm((low + high) / 2, deviation).cdf(log(490))
    assert (str(row.baseline), str(row.pick), row.remark) == ("0 %", f"{100 * expected:.0f} %", "estimated, asked 90 %")
    shown = outcome_values(limited, Path("run"))["recommended"]["time_limit_probability"]
    assert shown == pytest.approx(expected)
    assert outcome_values(outcome, Path("run"))["recommended"]["time_limit_probability"] is None
    assert "In time %" in _read(render_report(limited, **facts)).words
    assert "In time %" not in _read(render_report(outcome, **facts)).words


def test_every_latency_says_where_it_comes_from(outcome: Outcome, facts):
    measured = replace(
        outcome,
        trials=tuple(replace(trial, costs=replace(trial.costs, source="measured")) for trial in outcome.trials),
    )
    measured = replace(measured, front=measured.trials[2:0:-1], recommended=measured.trials[1])
    for shown, word, other in ((outcome, "estimated", "measured"), (measured, "measured", "estimated")):
        html = render_report(shown, **facts)
        assert html.count(f"Latency ms<br>{word}") == 2
        assert f"Latency (ms), {word}" in html
        assert f" ms ({word})" in html
        assert f"Latency ms<br>{other}" not in html


def test_a_repriced_run_says_so_at_its_top(outcome: Outcome, facts):
    unevaluated = replace(outcome.trials[6], violations={UNEVALUATED: 1.0})
    trials = (*outcome.trials[:6], unevaluated, outcome.trials[7])
    repriced = replace(outcome, trials=trials, device="rpi4", repriced_from="imx8mplus")
    words = _read(render_report(repriced, **facts)).words
    assert words.index("Repriced for rpi4 from a run made for imx8mplus") < words.index("Speech set")
    assert "Repriced" not in _read(render_report(outcome, **facts)).words
    assert outcome_values(repriced, Path("run"))["repriced_from"] == "imx8mplus"
    assert any(text.startswith("1 recipe is within the limits without a WER") for text in problems(repriced))
    console = Console(file=io.StringIO(), width=110, color_system=None)
    print_summary(repriced, console, folder=Path("run"))
    assert console.file.getvalue().startswith("Repriced for rpi4")


def test_without_power_there_is_no_energy_and_the_reader_is_told(outcome: Outcome, facts):
    trials = tuple(replace(t, costs=replace(t.costs, energy_mj=None)) for t in outcome.trials)
    powerless = replace(outcome, trials=trials, front=trials[2:0:-1], recommended=trials[1])
    assert "Energy" not in {row.label for row in compare(powerless)}
    told = "No energy: the profile of imx8mplus does not say what the device draws."
    assert told in problems(powerless)
    assert told in _read(render_report(powerless, **facts)).words


def test_problems_name_what_a_reader_must_know(outcome):
    assert problems(outcome) == (
        "The pick's artifact hears 'you' in noise, and so does the original.",
        "2 broken lines of search set skipped: not part of any WER.",
    )
    assert "not exported" in problems(replace(outcome, artifacts={}))[0]
    unexported = problems(replace(outcome, recommended=outcome.trials[2], confirmations={}))
    assert "The pick has no artifact: embedding_bits = 5 has no kernel." in unexported
    broken_promise = problems(replace(outcome, recommended=outcome.trials[2]))
    assert "WER of 7.00 % is over the budget" in broken_promise[0]
    unconfirmed = problems(replace(outcome, confirmations={}))
    assert "not confirmed" in unconfirmed[0]


@pytest.mark.parametrize(
    ("violations", "expected"),
    [
        ({"wer": 0.2, "memory": -0.1}, "is over the WER budget by 20 %: relax --wer-budget."),
        (
            {"wer": 0.02, "size": 0.5, "rtf": 0.1},
            "is over the WER budget by 2 % and the size limit by 50 % and the real-time factor limit by 10 %: "
            "relax --max-size-mb first.",
        ),
    ],
)
def test_an_infeasible_run_says_which_limit_to_relax(outcome, facts, violations, expected):
    nearest = replace(outcome.trials[3], violations=violations)
    infeasible = replace(outcome, front=(), recommended=None, least_violating=nearest)
    advice = f"No recipe met the limits. The nearest, trial 3, {expected}"
    assert problems(infeasible)[0] == advice
    page = _read(render_report(infeasible, **facts))
    assert advice in page.words
    assert "Convergence" not in page.words


def test_summary_is_the_golden_one(outcome, check_golden):
    console = Console(file=io.StringIO(), width=110, color_system=None)
    print_summary(outcome, console, folder=Path("results/first"))
    lines = [line.rstrip() for line in console.file.getvalue().splitlines()]
    check_golden("summary.txt", "\n".join(lines) + "\n")


def test_summary_takes_brackets_literally(outcome):
    console = Console(file=io.StringIO(), width=110, color_system=None)
    print_summary(replace(outcome, speech="set [red] one"), console, folder=Path("runs/[bold]"))
    assert "set [red] one" in console.file.getvalue()
    assert "runs/[bold]" in console.file.getvalue()


def test_json_values_agree_with_the_rows(outcome, dimensions):
    values = json.loads(json.dumps(outcome_values(outcome, Path("results/first")), allow_nan=False))
    rows: pd.DataFrame = trials_frame(outcome, dimensions).set_index("trial")
    assert values["front"] == [2, 1, 0]
    assert values["least_violating"] is None
    recommended = values["recommended"]
    for name in ("recipe_id", "objective", "wer", "wer_low", "wer_confirm", "size_mb", "latency_ms", "source"):
        assert recommended[name] == rows.loc[recommended["trial"], name]
