"""Repricing against the run itself, against pricing recipe by recipe, and as a command."""

import json
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import pandas as pd
import pytest

from benchmarks.speed.reprice import TINY_EN, synthetic_run
from common.errors import InputError
from common.files import sha256_of_file
from compression.recipe.recipe import Recipe
from devices.facts import RuntimeSupport
from devices.operation import Operation
from devices.profile import load_profile
from evaluators.costs.price import price
from search.cli import main
from search.commands.report import write_report_again
from search.configuration.config import SearchConfig
from search.limits.verdict import Budgets, Judge
from search.records.folder import RunFolder
from search.records.study_store import StudyStore
from search.reprice import Target, reprice
from search.space.space import runtime_violation
from search.trial import UNEVALUATED, Trial

FIRST = Path(__file__).parent.parent.parent / "results" / "first"
TABLES = ("trials.csv", "pareto.csv", "artifacts.csv")
SIZE_LIMIT_MB = 45


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """60 trials made for i.MX 8M Plus, with 16-bit activations among them, which a Raspberry Pi 4 does not execute."""
    return synthetic_run(tmp_path_factory.mktemp("runs") / "run", trials=60, max_size_mb=SIZE_LIMIT_MB)


@pytest.fixture(scope="module")
def trials(run: RunFolder) -> tuple[Trial, ...]:
    return StudyStore(run.study_file).trials()


def command(*arguments: object) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["whisperfit", *map(str, arguments)])
        with pytest.raises(SystemExit) as exited:
            main()
    return int(exited.value.code or 0)


def target(run: RunFolder, device: object, **flags: object) -> Target:
    profile = load_profile(device) if isinstance(device, str) else device
    config = SearchConfig.build(run.config_file, flags)
    return Target(profile=profile, config=config, dimensions=TINY_EN, run_device="imx8mplus")


def digests(folder: Path) -> dict[str, str]:
    return {entry.name: sha256_of_file(entry) for entry in folder.iterdir() if entry.is_file()}


def test_the_made_up_run_has_every_case(trials):
    assert {trial.state for trial in trials} == {"complete", "stopped", "rejected"}
    assert {trial.recipe.activation_bits for trial in trials if trial.accuracy} == {8, 16, 32}
    assert any(trial.feasible for trial in trials[1:])


def test_on_its_own_device_a_run_stays_as_it_is(run, trials, tmp_path):
    """The property that ties repricing to search."""
    assert tuple(reprice(trials, target(run, "imx8mplus"))) == trials
    write_report_again(run.path, as_json=False)
    assert command("reprice", run.path, "--device", "imx8mplus", "--out", tmp_path / "again") == 0
    for name in TABLES:
        assert (tmp_path / "again" / name).read_bytes() == (run.path / name).read_bytes()


def test_costs_and_states_are_those_of_pricing_each_recipe(run, trials):
    asked = target(run, "rpi4", max_latency_ms=1500.0, max_size_mb=60.0)
    rpi4, original = asked.profile, trials[0].recipe
    found = tuple(reprice(trials, asked))
    assert found[0].accuracy == trials[0].accuracy
    for before, after in zip(trials, found, strict=True):
        unsupported = runtime_violation(before.recipe, rpi4.runtime, original=original)
        same = ("number", "recipe", "seconds")
        assert [getattr(after, name) for name in same] == [getattr(before, name) for name in same]
        if unsupported:
            assert (after.state, after.accuracy, after.note) == ("rejected", None, unsupported)
            continue
        costs = price(TINY_EN, before.recipe, rpi4)
        assert after.costs.latency_ms == costs.latency_ms
        assert after.costs.energy_mj == pytest.approx(costs.latency_ms * rpi4.active_power_w)
        assert after.costs.peak_memory_mb == costs.peak_memory_bytes / 1e6
        within = costs.latency_ms <= 1500 and costs.size_bytes <= 60e6 and after.costs.peak_memory_mb <= 3400
        assert after.accuracy == before.accuracy
        if before.state != "rejected":
            assert after.state == before.state
            in_budget = before.violations["wer"] <= 0
            assert after.feasible == (before.state == "complete" and within and in_budget)
        else:
            assert after.state == "rejected"
            assert (UNEVALUATED in after.violations) == within
            assert within == after.note.startswith("not evaluated: rejected on imx8mplus (size is ")


class Partial:
    """A Raspberry Pi 4 whose table holds no time for some operations."""

    def __init__(self, *, without: Callable[[Operation], bool], executes: RuntimeSupport) -> None:
        self._whole, self._without, self.runtime = load_profile("rpi4"), without, executes

    def latency(self, operation: Operation) -> object:
        if self._without(operation):
            raise InputError(f"no latency for {operation.kind}")
        return self._whole.latency(operation)

    def __getattr__(self, name: str) -> object:
        return getattr(self._whole, name)


def rounds_to_16(operation: Operation) -> bool:
    return operation.activation_bits == 16


def test_what_the_new_table_cannot_price_has_no_latency(run, trials):
    partial = Partial(without=rounds_to_16, executes=load_profile("rpi4").runtime)
    found = tuple(reprice(trials, target(run, partial)))
    unpriced = [trial for trial in found if trial.costs.latency_ms is None]
    assert unpriced
    for trial in unpriced:
        before, costs = trials[trial.number].costs, trial.costs
        assert trial.recipe.activation_bits == 16
        assert (trial.state, trial.accuracy, trial.feasible) == ("rejected", None, False)
        assert "executes activation bits [8, 32], not [16]" in trial.note
        for name in ("size_mb", "flops_g", "peak_memory_mb", "parameters_m"):
            assert getattr(costs, name) == getattr(before, name)
        for name in ("latency_low_ms", "latency_high_ms", "rtf", "energy_mj", "energy_above_idle_mj", "occupancy"):
            assert getattr(costs, name) is None


def test_a_gap_in_the_table_of_what_the_runtime_executes_is_an_error(run, trials):
    partial = Partial(without=rounds_to_16, executes=load_profile("imx8mplus").runtime)
    with pytest.raises(InputError, match="no latency for"):
        tuple(reprice(trials, target(run, partial)))


def test_a_trial_within_the_old_limits_says_which_new_ones_it_breaks(run, trials):
    found = tuple(reprice(trials, target(run, "imx8mplus", max_latency_ms=100.0)))
    for before, after in zip(trials, found, strict=True):
        if before.accuracy:
            broke_before = any(over > 0 for name, over in before.violations.items() if name != "wer")
            assert not after.feasible
            assert ("on imx8mplus, latency is" in after.note) == (not broke_before)
        else:
            assert "latency is" in after.note


def test_files_say_where_they_come_from_and_the_run_is_left_alone(run, capsys):
    before = digests(run.path)
    code = command("reprice", run.path, "--device", "rpi4", "--max-latency-ms", 1500, "--json")
    shown = json.loads(capsys.readouterr().out)
    assert digests(run.path) == before
    folder = run.path / "devices" / "rpi4"
    assert {entry.name for entry in folder.iterdir()} == {*TABLES, "report.html", "reprice.toml"}
    origin = RunFolder(folder)
    values = tomllib.loads((folder / "reprice.toml").read_text(encoding="utf-8"))
    assert (folder / values["run"]["folder"]).resolve() == run.path.resolve()
    assert (values["run"]["device"], values["device"]["name"]) == ("imx8mplus", "rpi4")
    assert values["run"]["study_sha256"] == sha256_of_file(run.study_file)
    assert values["run"]["device_sha256"] == load_profile("imx8mplus").digest
    assert values["device"]["sha256"] == load_profile("rpi4").digest
    assert values["configuration"]["max_latency_ms"] == 1500
    assert origin.holds_run is False
    assert code == (0 if shown["recommended"] else 3)
    assert (shown["device"], shown["repriced_from"]) == ("rpi4", "imx8mplus")
    table = pd.read_csv(folder / "trials.csv").set_index("trial")
    pick = shown["recommended"]
    assert pick["latency_ms"] == pytest.approx(table["latency_ms"][pick["trial"]])
    assert 0.5 <= pick["time_limit_probability"] <= 1
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "Repriced for rpi4 from a run made for imx8mplus" in page
    assert table["latency_ms"][table["note"].str.contains("no latency", na=False)].isna().all()


def test_the_front_keeps_its_confirmations(run, trials, capsys):
    assert command("reprice", run.path, "--device", "imx8qm", "--json") == 0
    capsys.readouterr()
    own = pd.read_csv(run.path / "pareto.csv").set_index("recipe_id")
    there = pd.read_csv(run.path / "devices" / "imx8qm" / "pareto.csv").set_index("recipe_id")
    both = own.index.intersection(there.index)
    assert len(both)
    for name in ("wer", "wer_confirm", "words"):
        assert there.loc[both, name].equals(own.loc[both, name])


def test_nothing_feasible_ends_with_3_and_the_limit_to_relax(run, capsys):
    assert command("reprice", run.path, "--device", "rpi5", "--max-latency-ms", 1, "--json") == 3
    shown = json.loads(capsys.readouterr().out)
    assert (shown["recommended"], shown["front"]) == (None, [])
    assert "--max-latency-ms" in shown["problems"][0]
    assert pd.read_csv(run.path / "devices" / "rpi5" / "pareto.csv").empty


def test_a_confidence_makes_the_same_limit_stricter(run):
    def feasible(confidence: float) -> set[int]:
        asked = target(run, "rpi4", max_latency_ms=1500.0, latency_confidence=confidence)
        return {trial.number for trial in reprice(StudyStore(run.study_file).trials(), asked) if trial.feasible}

    hasty, median, careful = (feasible(confidence) for confidence in (0.05, 0.5, 0.95))
    assert careful <= median <= hasty
    assert len(careful) < len(hasty)


def test_the_first_run_is_priced_for_a_phone(tmp_path, capsys):
    """Made with an older cost model, another profile of its device, and records without occupancy."""
    before = digests(FIRST)
    code = command("reprice", FIRST, "--device", "phone-midrange", "--out", tmp_path / "phone", "--json")
    assert digests(FIRST) == before
    assert code == 0
    shown = json.loads(capsys.readouterr().out)
    recipe = Recipe.from_json(pd.read_csv(tmp_path / "phone" / "pareto.csv")["recipe"][0])
    costs = price(TINY_EN, recipe, load_profile("phone-midrange"))
    assert shown["recommended"]["recipe_id"] == recipe.id
    assert shown["recommended"]["latency_ms"] == costs.latency_ms
    assert shown["recommended"]["occupancy"] == costs.occupancy
    ours, theirs = (pd.read_csv(folder / "trials.csv").set_index("trial") for folder in (FIRST, tmp_path / "phone"))
    evaluated = theirs.index[theirs["wer"].notna()]
    assert theirs["wer"][evaluated].equals(ours["wer"][evaluated])


def test_a_profile_without_power_has_no_energy(run, tmp_path, capsys):
    toml = (files("devices.profiles") / "rpi4.toml").read_text(encoding="utf-8")
    lines = [line for line in toml.splitlines() if "_power_w" not in line]
    (tmp_path / "board.toml").write_text("\n".join(lines), encoding="utf-8")
    assert command("reprice", run.path, "--device", tmp_path / "board.toml", "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["recommended"]["energy_mj"], shown["recommended"]["energy_above_idle_mj"]) == (None, None)
    assert "No energy: the profile of board does not say what the device draws." in shown["problems"]
    table = pd.read_csv(run.path / "devices" / "board" / "trials.csv")
    assert table["energy_mj"].isna().all()
    priced = table["latency_ms"].notna()
    assert table["note"][priced].str.contains("no energy: the device profile has no power").all()


def asked_anew(run: RunFolder, before: str, **flags: object) -> Target:
    return replace(target(run, "imx8mplus", **flags), run_budgets=Budgets(wer=before))


@pytest.mark.parametrize("gamma", [0, 10, 35, 80])
def test_another_budget_is_judged_in_whole_errors(gamma, run, trials):
    found = tuple(reprice(trials, asked_anew(run, "+10%", wer_budget=f"+{gamma}%")))
    original = trials[0].accuracy
    allowed = original.rate.errors * (100 + gamma) // 100
    for before, after in zip(trials, found, strict=True):
        assert (after.state, after.accuracy, after.costs) == (before.state, before.accuracy, before.costs)
        if after.state == "complete":
            keeps_costs = all(over <= 0 for name, over in before.violations.items() if name != "wer")
            assert after.feasible == (after.accuracy.rate.errors <= allowed and keeps_costs)
        assert not (after.state != "complete" and after.feasible)


def test_the_same_budget_changes_nothing(run, trials):
    assert tuple(reprice(trials, asked_anew(run, "+10%", wer_budget="+10%"))) == trials


def test_the_guard_of_short_windows_is_asked_again(run, trials):
    """30 insertions where the original has none: over +10 %, of 168 errors, and within +900 %."""
    counts = [replace(u, insertions=8 * (n % 4 == 0)) for n, u in enumerate(trials[0].accuracy.utterances)]
    before = [replace(u, insertions=1) for u in trials[0].accuracy.utterances]
    original = replace(trials[0], accuracy=replace(trials[0].accuracy, utterances=tuple(before)))
    accuracy = replace(trials[1].accuracy or original.accuracy, utterances=tuple(counts))
    judge = Judge.of(original.accuracy, Budgets(wer="+10%"))
    finding = judge.window(accuracy, seed=0)
    assert finding.violations["insertions"] > 0
    violations = judge.violations(accuracy, "complete") | finding.violations
    short = replace(trials[1], state="complete", accuracy=accuracy, violations=violations, note=f"x; {finding.note}")
    _, same = reprice((original, short), asked_anew(run, "+11%", wer_budget="+10%"))
    assert same.violations["insertions"] > 0
    assert finding.note in same.note
    _, laxer = reprice((original, short), asked_anew(run, "+10%", wer_budget="+900%"))
    assert laxer.violations["insertions"] == 0
    assert laxer.violations["run_on"] == violations["run_on"]
    assert laxer.note.startswith("x")
    assert "insertions" not in laxer.note


def test_another_question_to_the_same_device(run, trials, capsys):
    """With a much laxer budget some of what was stopped could be within it; confirmations are judged by it too."""
    before = digests(run.path)
    assert command("reprice", run.path, "--wer-budget", "+100%", "--confidence", 0.9, "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert digests(run.path) == before
    folder = run.path / "questions" / "confidence0.9_wer_budget+100"
    assert {entry.name for entry in folder.iterdir()} == {*TABLES, "report.html", "reprice.toml"}
    assert shown["asked_before"] == {"wer_budget": "+10%", "confidence": "0.5"}
    assert shown["wer_limit"] == pytest.approx(2 * trials[0].accuracy.wer)
    found = tuple(reprice(trials, asked_anew(run, "+10%", wer_budget="+100%")))
    hopeful = [t for t in found if t.state == "stopped" and all(over <= 0 for over in t.violations.values())]
    assert hopeful
    (problem,) = (text for text in shown["problems"] if "stopped them early" in text)
    assert problem.startswith(f"{len(hopeful)} recipe")
    feasible = [t for t in found if t.feasible]
    assert shown["recommended"]["objective"] <= min(t.objective for t in trials if t.feasible)
    table = pd.read_csv(folder / "trials.csv")
    assert set(table["trial"][table["feasible"]]) == {t.number for t in feasible}
    assert "Answered anew from what a run measured" in (folder / "report.html").read_text(encoding="utf-8")


def test_nothing_different_is_no_question(run, capsys):
    assert command("reprice", run.path) == 2
    assert "say what is to be different: --device, --wer-budget" in capsys.readouterr().err


def test_needs_neither_torch_nor_the_model(run, tmp_path):
    script = (
        "import sys\nfrom search.cli import main\ntry:\n    main()\nfinally:\n    assert 'torch' not in sys.modules"
    )
    arguments = ["reprice", str(run.path), "--device", "rpi5", "--out", str(tmp_path / "out")]
    ended = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a user's file in it."""
    (tmp_path / "file").write_text("thesis", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("options", "complaints"),
    [
        (("--device", "rpi44"), ("unknown device 'rpi44'", "Did you mean 'rpi4'?")),
        (("--device", "missing.toml"), ("missing.toml", "cannot be read")),
        (("--device", "rpi4", "--max-rtf", -1), ("--max-rtf", "-1")),
        (("--device", "rpi4", "--latency-confidence", 90), ("--latency-confidence", "less than 1")),
        (("--device", "rpi4", "--objective", "0,0"), ("objective '0,0'",)),
        (("--device", "rpi4", "--out", "."), ("--out .: exists and is no repricing",)),
        (("--device", "rpi4", "--out", "file"), ("--out file: exists and is no repricing",)),
        (("--device", "rpi4", "--out", "file/below"), ("--out file/below: cannot be written",)),
    ],
    ids=str,
)
def test_bad_options(options, complaints, run, here, capsys):
    assert command("reprice", run.path, *options) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith("whisperfit: ")
    assert all(complaint in line for complaint in complaints), line
    assert (here / "file").read_text(encoding="utf-8") == "thesis"


def test_a_folder_that_holds_no_run_or_no_baseline(run, tmp_path, capsys):
    assert command("reprice", tmp_path, "--device", "rpi4") == 2
    assert "holds no run" in capsys.readouterr().err
    empty = shutil.copytree(run.path, tmp_path / "empty", ignore=shutil.ignore_patterns("devices", "study.db"))
    StudyStore(empty / "study.db")
    assert command("reprice", empty, "--device", "rpi4") == 2
    assert "ended before its first trial" in capsys.readouterr().err
    assert not (empty / "devices").exists()


def test_a_failed_trial_stays_failed(run, trials):
    failed = replace(trials[1], state="failed", accuracy=None, violations={"failed": 1.0}, note="logits are NaN")
    _, after = reprice((trials[0], failed), target(run, "imx8mplus"))
    assert (after.state, after.feasible, after.note) == ("failed", False, "logits are NaN")
    assert after.violations["failed"] == 1.0
