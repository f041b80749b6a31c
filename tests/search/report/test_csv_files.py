from dataclasses import replace
from io import StringIO

import pandas as pd
import pytest

from compression.recipe.recipe import Recipe
from search.outcome import Outcome
from search.report.csv_files import (
    COLUMNS,
    artifacts_frame,
    mean_weight_bits,
    pareto_frame,
    trials_frame,
)
from search.report.result_files import ResultFiles

CONTRACT = (
    "trial,recipe_id,state,feasible,recommended,objective,"
    "wer,wer_low,wer_high,wer_confirm,insertions,deletions,substitutions,words,"
    "size_mb,flops_g,latency_ms,latency_low_ms,latency_high_ms,rtf,peak_memory_mb,energy_mj,parameters_m,"
    "encoder_layers,decoder_layers,heads,ffn_channels,mean_weight_bits,activation_bits,vocabulary,window_s,"
    "source,seconds,note,recipe,divergence,divergence_tokens,p_within_budget,flops_fvcore_g,"
    "language_accuracy,language_accuracy_confirm"
)


@pytest.mark.parametrize("name", ["trials.csv", "pareto.csv", "artifacts.csv"])
def test_files_are_the_golden_ones(name, outcome, dimensions, tmp_path, check_golden):
    ResultFiles(tmp_path, dimensions).write(outcome)
    check_golden(name, (tmp_path / name).read_text(encoding="utf-8"))


def test_columns_are_those_of_the_contract(outcome, dimensions):
    assert ",".join(COLUMNS) == CONTRACT
    assert list(trials_frame(outcome, dimensions).columns) == list(pareto_frame(outcome, dimensions).columns)


def test_the_front_has_the_figures_of_its_artifacts(outcome: Outcome, dimensions, artifact_figures):
    pareto = pareto_frame(outcome, dimensions).set_index("trial")
    trials = trials_frame(outcome, dimensions).set_index("trial")
    assert (pareto["size_mb"][1], pareto["wer"][1], pareto["deletions"][1]) == (30.4, 0.0513, 20)
    assert (trials["size_mb"][1], trials["wer"][1]) == (40.0 * 0.8, 0.051)
    assert pareto["size_mb"][2] == trials["size_mb"][2], "it was not exported"
    assert (pareto["latency_ms"] == trials["latency_ms"][pareto.index]).all(), "another device than this one"
    here = pareto_frame(replace(outcome, device="host"), dimensions).set_index("trial")
    assert (here["latency_ms"][1], here["source"][1], here["source"][2]) == (120.0, "measured", "estimated")
    assert here["rtf"][1] == pytest.approx(0.012)
    assert list(artifacts_frame(outcome)["trial"]) == [0, 1, 2]


def test_files_read_back_as_what_was_written(outcome: Outcome, dimensions, tmp_path):
    ResultFiles(tmp_path, dimensions).write(outcome)
    read = pd.read_csv(tmp_path / "trials.csv").set_index("trial")
    assert list(read.index) == [trial.number for trial in outcome.trials]
    for trial in outcome.trials:
        row = read.loc[trial.number]
        assert Recipe.from_json(row["recipe"]) == trial.recipe
        assert row["recipe_id"] == trial.recipe.id
        assert row["feasible"] == trial.feasible
        assert row["recommended"] == (trial is outcome.recommended)
        assert row["size_mb"] == pytest.approx(trial.costs.size_mb, rel=1e-9)
        confirmation = outcome.confirmations.get(trial.recipe.id)
        assert pd.isna(row["wer_confirm"]) == (confirmation is None)
        assert pd.isna(row["wer"]) == (trial.accuracy is None)
        if trial.accuracy and trial.state == "complete":
            errors = row[["insertions", "deletions", "substitutions"]].sum()
            assert row["wer"] == pytest.approx(errors / row["words"], rel=1e-9)


def test_every_empty_cell_has_its_reason(outcome, dimensions):
    notes = trials_frame(outcome, dimensions).set_index("trial")["note"]
    assert notes[1] == ""
    assert notes[2] == "no artifact: embedding_bits = 5 has no kernel"
    assert notes[3] == "not confirmed; not exported"
    assert notes[5] == "surely over the budget; WER over the first 30 of 100 utterances"
    assert notes[6] == "size, 72 MB > 60 MB"
    assert notes[7] == "logits </script> are <b>not finite</b>"
    unconfirmed = replace(outcome, confirm_speech=None, confirmations={})
    assert trials_frame(unconfirmed, dimensions)["note"][1] == "no confirm set"
    assert trials_frame(replace(outcome, artifacts={}), dimensions)["note"][1] == "not exported"


def test_what_the_device_cannot_tell_is_empty_with_its_reason(outcome: Outcome, dimensions, tmp_path):
    without = replace(outcome.baseline.costs, energy_mj=None, energy_above_idle_mj=None)
    nothing = replace(without, latency_ms=None, latency_low_ms=None, latency_high_ms=None, rtf=None, occupancy=None)
    trials = (replace(outcome.trials[1], costs=without), replace(outcome.trials[6], costs=nothing))
    ResultFiles(tmp_path, dimensions).write(replace(outcome, trials=trials, front=trials[:1]))
    read = pd.read_csv(tmp_path / "trials.csv").set_index("trial")
    assert read["energy_mj"].isna().all()
    assert list(read[["latency_ms", "latency_low_ms", "latency_high_ms", "rtf"]].isna().all(axis=1)) == [False, True]
    assert read["note"][1] == "no energy: the device profile has no power"
    assert read["note"][6] == "size, 72 MB > 60 MB; no latency on imx8mplus"


def test_artifacts_of_another_machine_say_nothing_about_this_one(outcome: Outcome, dimensions):
    there = replace(outcome, device="host", artifacts_are_of_host=False)
    assert set(pareto_frame(there, dimensions)["source"]) == {"estimated"}


def test_points_that_differ_little_are_a_front_in_the_file(outcome, dimensions, tmp_path, make_trial):
    trials = [
        make_trial(0, objective=0.5 + 1e-8, wer=0.05),
        make_trial(1, objective=0.5, wer=0.051),
    ]
    two = replace(outcome, trials=tuple(trials), front=(trials[1], trials[0]), artifacts={})
    ResultFiles(tmp_path, dimensions).write(two)
    read = pd.read_csv(tmp_path / "pareto.csv")
    assert read["objective"].is_monotonic_increasing
    assert read["objective"].is_unique
    assert (read["wer"].diff().dropna() < 0).all()


def test_empty_front_writes_the_header(outcome, dimensions, tmp_path):
    ResultFiles(tmp_path, dimensions).write(replace(outcome, front=(), recommended=None))
    assert (tmp_path / "pareto.csv").read_text(encoding="utf-8") == CONTRACT + "\n"


def test_mean_weight_bits_against_the_sizes_of_whisper_s_matrices(outcome, dimensions):
    """Recipe of trial 3: 5 of 6 self-attention heads and 8 bits; one encoder layer dropped, one decoder layer whole."""
    recipe = outcome.trials[3].recipe
    n, head = 384, 64
    at_8 = 4 * n * 5 * head + 8 * n * n  # encoder layer
    at_8 += 4 * n * 5 * head + 4 * n * n + 8 * n * n  # decoder layer
    at_8 += 51864 * n
    at_16 = 16 * n * n + 3 * n * (80 + n)  # the other decoder layer, convolutions
    assert mean_weight_bits(recipe, dimensions) == pytest.approx((8 * at_8 + 16 * at_16) / (at_8 + at_16), rel=1e-12)
    assert mean_weight_bits(Recipe.original(dimensions, stored_bits=32), dimensions) == 32
    factored = replace(recipe, encoder=tuple(layer and replace(layer, ffn_rank=96) for layer in recipe.encoder))
    at_8 -= 8 * n * n - 2 * 96 * 5 * n
    assert mean_weight_bits(factored, dimensions) == pytest.approx((8 * at_8 + 16 * at_16) / (at_8 + at_16), rel=1e-12)


def test_mean_weight_bits_count_frequent_tokens(dimensions):
    original = Recipe.original(dimensions)
    plain, frequent = (replace(original, embedding_bits=4, frequent_tokens=tokens) for tokens in (0, 1024))
    weights = original_weights(dimensions)
    more = 4 * (1024 + 1608) * 384 / weights
    assert mean_weight_bits(frequent, dimensions) == pytest.approx(mean_weight_bits(plain, dimensions) + more)


def original_weights(dimensions):
    """Of the embedding, of 12 n^2 weights in an encoder layer and 16 n^2 in a decoder layer, and the convolutions."""
    n, layers = 384, dimensions.n_audio_layer
    return 51864 * n + layers * 28 * n * n + 3 * n * (80 + n)


def test_structure_counts_what_is_kept(outcome, dimensions):
    row = trials_frame(outcome, dimensions).set_index("trial").loc[3]
    assert (row["encoder_layers"], row["decoder_layers"]) == (1, 2)
    assert row["heads"] == 5 + (5 + 6) + (6 + 6)
    assert row["ffn_channels"] == 3 * 1536
    assert row["vocabulary"] == 51864


def test_all_unmeasured_columns_stay_numbers(outcome, dimensions):
    rejected = replace(outcome, trials=(outcome.trials[6],), front=(), recommended=None)
    frame = trials_frame(rejected, dimensions)
    assert frame["wer"].dtype == "float64"
    assert frame["words"].isna().all()
    read = pd.read_csv(StringIO(frame.to_csv(index=False)))
    assert read["words"].isna().all()
