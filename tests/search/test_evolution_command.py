"""`whisperfit search` with its default engine, from beginning to end, on a network of random weights."""

from pathlib import Path

from optuna import load_study

from tests.search.commands import Whisperfit, files, rows, search_arguments, whisperfit

__all__ = ["files", "whisperfit"]


def test_recipes_are_judged_by_divergence_and_the_pick_says_how_sure_it_is(
    files: Path, tmp_path: Path, whisperfit: Whisperfit
) -> None:
    out = tmp_path / "run"
    arguments = search_arguments(files, out, engine="evolution", trials=20, divergence_clips=4)
    ended = whisperfit(*arguments, "--wer-budget", "+900%")
    assert ended.code == 0, ended.err
    trials = rows(out / "trials.csv")
    assert len({row["recipe_id"] for row in trials}) == len(trials) >= 20
    original, *others = trials
    assert (float(original["divergence"]), float(original["p_within_budget"])) == (0.0, 1.0)
    judged = [row for row in others if row["state"] == "stopped" and not row["wer"]]
    assert judged
    assert all(int(row["divergence_tokens"]) > 0 for row in judged)
    assert all(float(row["divergence"]) > 0 for row in judged if row["mean_weight_bits"] != "16")  # 16 in the file
    assert all(row["note"].startswith(("dominated", "not scored")) for row in judged)
    [pick] = [row for row in rows(out / "pareto.csv") if row["recommended"] == "True"]
    assert float(pick["p_within_budget"]) >= 0.5
    assert 'engine = "evolution"' in (out / "config.toml").read_text(encoding="utf-8")
    study = load_study(study_name="whisperfit", storage=f"sqlite:///{out / 'study.db'}")
    assert {len(trial.params) for trial in study.trials} == {len(study.trials[0].params)}
    assert "P(within budget)" in (out / "report.html").read_text(encoding="utf-8")
