import base64
import hashlib
import io
import json
import re
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from math import log
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console
from scipy.stats import norm

from evaluators.accuracy.error_rate import ErrorRate, GroupKey
from search.limits.budget import CostLimits
from search.outcome import ArtifactRecord, Outcome
from search.report.baseline_vs_pick import compare
from search.report.csv_files import artifacts_frame, trials_frame
from search.report.figures import convergence_figure, front_figure, groups_figure
from search.report.group_and_silence_notes import group_rows
from search.report.page import render_report, varying_genes, write_report
from search.report.problems import problems
from search.report.summary import outcome_values, print_summary
from search.trial import UNEVALUATED, GroupErrors


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
        monkeypatch.setattr(f"search.report.page.{name}", lambda *_, name=name: name)
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


def _group(name: str, errors: int, words: int = 200) -> GroupErrors:
    wer = errors / words
    rate = ErrorRate(errors=errors, words=words, low=0.5 * wer, high=1.5 * wer)
    return GroupErrors(key=GroupKey(kind="language", name=name), rate=rate, utterances=9)


@pytest.fixture
def grouped(outcome: Outcome) -> Outcome:
    """The original and the pick in three groups: es has more errors, de lost more, and of <fr> there is too little."""
    groups = {0: (20, 30, 1), 1: (25, 33, 4)}
    trials = [
        replace(
            trial,
            accuracy=trial.accuracy
            and replace(
                trial.accuracy,
                groups=(
                    _group("de", groups[trial.number][0]),
                    _group("es", groups[trial.number][1]),
                    _group("<fr>", groups[trial.number][2], words=40),
                ),
            ),
        )
        if trial.number in groups
        else trial
        for trial in outcome.trials
    ]
    front = tuple(trials[trial.number] for trial in outcome.front)
    return replace(
        outcome, trials=tuple(trials), front=front, recommended=trials[1], group_budget="+30%", speech="three tongues"
    )


def _in_cells(html: str) -> str:
    """The page's words with a space between cells."""
    return " ".join(_read(html.replace("</td>", " </td>")).words.split())


def test_groups_are_shown_for_original_and_pick(grouped: Outcome, facts):
    words = _in_cells(render_report(grouped, **facts))
    assert "Group budget +30%: no group of 100 words or more may have a larger WER than its limit." in words
    for row in (
        "language de 9 200 10.00 5.00 to 15.00 12.50 6.25 to 18.75 +2.50 13.00 worst",
        "language es 9 200 15.00 7.50 to 22.50 16.50 8.25 to 24.75 +1.50 19.50",
        "language <fr> 9 40 2.50 1.25 to 3.75 10.00 5.00 to 15.00 +7.50 below 100 words, not judged",
    ):
        assert row in words
    assert "language de, 12.50" in words, "in the front's table"
    traces = _traces(groups_figure(group_rows(grouped, grouped.trials[1]), grouped.trials[1]))
    assert traces["baseline"]["x"] == pytest.approx([10.0, 15.0, 2.5])
    assert traces["trial 1"]["x"] == pytest.approx([12.5, 16.5, 10.0])
    assert traces["trial 1"]["error_x"]["array"] == pytest.approx([6.25, 8.25, 5.0])
    assert traces["limit"]["x"] == pytest.approx([13.0, 19.5])
    row = {row.label: row for row in compare(grouped)}["Worst group"]
    assert (str(row.baseline), str(row.pick)) == ("10.00 % (5.00 to 15.00)", "12.50 % (6.25 to 18.75)")
    assert (row.change, row.note) == ("+2.50 points", "language de, budget 13.00 %")


def test_without_a_group_budget_groups_have_no_limits(grouped: Outcome, facts):
    free = replace(grouped, group_budget=None)
    words = _in_cells(render_report(free, **facts))
    assert "There was no group budget." in words
    assert "12.50 6.25 to 18.75 +2.50 worst" in words
    assert "limit" not in _traces(groups_figure(group_rows(free, free.trials[1]), free.trials[1]))
    assert {row.label: row for row in compare(free)}["Worst group"].note == "language de"


def test_a_run_from_before_groups_has_none(outcome: Outcome, facts):
    assert "Groups overlap" not in _read(render_report(outcome, **facts)).words
    assert "Worst group" not in {row.label for row in compare(outcome)}
    assert outcome_values(outcome, Path("run"))["recommended"]["worst_group"] is None


def test_groups_are_in_the_json(grouped: Outcome):
    values = json.loads(json.dumps(outcome_values(grouped, Path("run")), allow_nan=False))
    assert values["group_budget"] == "+30%"
    pick = values["recommended"]
    assert pick["worst_group"] == {"kind": "language", "name": "de", "over": pytest.approx(25 / 26 - 1)}
    assert [(group["name"], group["errors"], group["words"]) for group in pick["groups"]] == [
        ("de", 25, 200), ("es", 33, 200), ("<fr>", 4, 40)
    ]  # fmt: skip


def test_who_breaks_the_group_budget_is_named(grouped: Outcome, dimensions, facts):
    over = replace(
        grouped.trials[1],
        violations={"wer": -0.1, "group": 33 / 26 - 1},
        accuracy=replace(grouped.trials[1].accuracy, groups=(_group("de", 33), _group("es", 33))),
    )
    trials = (grouped.trials[0], over, *grouped.trials[2:])
    infeasible = replace(grouped, trials=trials, front=(), recommended=None, least_violating=over)
    assert problems(infeasible)[0] == (
        "No recipe met the limits. The nearest, trial 1, is over the group budget by 26.9 % (language de: 16.50 %, "
        "at most 13.00 %): relax --group-budget."
    )
    notes = trials_frame(infeasible, dimensions).set_index("trial")["note"]
    assert notes[1].startswith("over the group budget in language de: 16.50 %, at most 13.00 %")
    assert "group budget" not in notes[0]
    assert "worst, over" in " ".join(_read(render_report(infeasible, **facts)).words.split())


def test_a_pick_that_detects_too_few_languages_elsewhere_is_told(outcome: Outcome, artifact_figures):
    original, pick = outcome.trials[0].recipe.id, outcome.trials[1].recipe.id
    confirmed = {
        original: replace(outcome.confirmations[original], language_accuracy=0.99),
        pick: replace(outcome.confirmations[pick], language_accuracy=0.9, within_budget=False),
    }
    figures = replace(artifact_figures, language_accuracy=0.95)
    artifacts = outcome.artifacts | {pick: ArtifactRecord(figures=figures, note="")}
    asked = replace(outcome, confirmations=confirmed, artifacts=artifacts, min_language_accuracy=0.98)
    told = "it detects the language of 90.00 % of the utterances, and at least 98.00 % are asked for."
    assert problems(asked)[0] == f"The pick on confirm set, which the search never saw: {told}"
    assert told.replace("it ", "The pick's artifact ").replace("90", "95") in problems(asked)
    rows = {row.label: row for row in compare(asked)}
    assert rows["Language detected, confirmed"].change == "-9.0 points"
    free = problems(replace(asked, min_language_accuracy=None))
    assert "its WER of 6.20 % is over the budget taken over the baseline there." in free[0]
    assert not any("detects" in problem for problem in free)


def test_the_group_budget_on_unseen_speech(grouped: Outcome):
    """Broken there by the pick; judged by no group, where all are small."""
    original, pick = grouped.trials[0].recipe.id, grouped.trials[1].recipe.id
    confirmed = {
        original: replace(grouped.confirmations[original], groups=(_group("de", 10), _group("es", 10))),
        pick: replace(grouped.confirmations[pick], groups=(_group("de", 10), _group("es", 20)), within_budget=False),
    }
    (first, *_) = problems(replace(grouped, confirmations=confirmed))
    assert "its WER in language es: 10.00 %, at most 6.50 %, is over the budget taken over the baseline" in first
    small = {name: replace(one, groups=(_group("de", 3, words=50),)) for name, one in confirmed.items()}
    told = "The group budget was not checked on confirm set: no group has 100 words there."
    assert told in problems(replace(grouped, confirmations=small))
    assert told not in problems(replace(grouped, confirmations=confirmed))


def test_what_only_the_pick_hears_in_silence_is_told(outcome: Outcome, artifact_figures, dimensions):
    def heard(original: str, pick: str) -> Outcome:
        records = [(0, original), (1, pick)]
        artifacts = {
            outcome.trials[number].recipe.id: ArtifactRecord(
                figures=replace(artifact_figures, on_noise="", on_quiet=text), note=""
            )
            for number, text in records
        }
        return replace(outcome, artifacts=artifacts)

    brought = heard("", "Thank you.")
    note = "hears 'Thank you.' in faint noise, where the original hears nothing"
    assert f"The pick's artifact {note}." in problems(brought)
    for frame in (trials_frame(brought, dimensions), artifacts_frame(brought)):
        notes = frame.set_index("trial")["note"]
        assert note in notes[1]
        assert "hears" not in notes[0]
    both = heard("you", "you " * 40)
    shown = [text for text in problems(both) if "faint noise" in text]
    assert shown == [f"The pick's artifact hears '{('you ' * 15)}...' in faint noise, where the original hears 'you'."]
    assert "hears" not in "".join(trials_frame(both, dimensions)["note"])


def test_characters_are_called_characters(outcome: Outcome, facts):
    characters = replace(outcome, normaliser="whisper-characters-1+whisper-basic-1")
    words = " ".join(_read(render_report(characters, **facts)).words.split())
    assert "so words and characters are counted, and what is called WER here is their error rate" in words
    assert "are counted" not in _read(render_report(outcome, **facts)).words


def test_what_is_wrong_with_the_original_is_told(outcome: Outcome):
    baseline = replace(outcome.baseline, note="in 9 of 9 utterances reference and transcript are in different scripts")
    noted = replace(outcome, trials=(baseline, *outcome.trials[1:]))
    told = [problem for problem in problems(noted) if problem not in problems(outcome)]
    assert told == ["The original: in 9 of 9 utterances reference and transcript are in different scripts."]


def test_a_browser_runs_the_pages_own_scripts_and_loads_nothing(outcome: Outcome, facts):
    html = render_report(outcome, **facts)
    policy = unescape(re.search(r'<meta http-equiv="Content-Security-Policy" content="(.*?)">', html)[1])
    directives = dict(part.strip().split(" ", 1) for part in policy.split(";"))
    assert directives["default-src"] == "'none'"
    scripts = re.findall(r"<script[^>]*>(.*?)</script>", html, flags=re.DOTALL)
    assert len(scripts) > 1
    digests = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    assert sorted(directives["script-src"].split()) == sorted(f"'sha256-{digest}'" for digest in digests)
