"""The script on transformers whose latencies follow the model, and on the real ones."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared" / "devices" / "hat_transformers_pi4.csv"
COLUMNS = (
    "encoder_embed_dim,encoder_layer_num,encoder_ffn_embed_dim_avg,decoder_embed_dim,decoder_layer_num,"
    "decoder_ffn_embed_dim_avg,decoder_arbitrary_ende_attn_avg,latency_mean_encoder,latency_mean_decoder"
)


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, str(ROOT / "benchmarks" / "latency" / "predictor_pi4.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)


def figures(*arguments: str) -> dict[str, Any]:
    done = run(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def transformers(file: Path, rows: int, *, slow: int = 0, encoder_width: int | None = None) -> Path:
    """Encoders at 2 ms a layer and 4 GMAC/s; decoders at 10 ms a step, 5 ms a call, 1 GB/s and so on; exact."""
    rng = np.random.default_rng(11)
    lines = [COLUMNS]
    for index in range(rows):
        width, decoder_width = encoder_width or rng.choice([512, 640]), rng.choice([512, 640])
        layers, ffn, decoder_ffn = rng.integers(1, 7), rng.uniform(512, 3072), rng.uniform(512, 3072)
        attended = rng.uniform(1, 3)
        encoder = 6 * 2.0 + 30 * 6 * (4 * 512 * width + 2 * width * ffn) / 4e6
        decoder = 30 * (10.0 + 5.0 * layers + 0.1 * decoder_width)
        decoder += 30 * 4 * layers * (6 * 512 * decoder_width + 2 * decoder_width * decoder_ffn) / 1e6
        decoder += layers * attended * 150 * 2 * 512 * width / 3e6
        if index < slow:
            encoder *= 10.0
        values = (width, 6, ffn, decoder_width, layers, decoder_ffn, attended, encoder, decoder)
        lines.append(",".join(f"{value:.12g}" for value in values))
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


def test_exact_latencies_are_predicted_exactly_and_plotted(tmp_path: Path) -> None:
    file, plot = transformers(tmp_path / "exact.csv", 200), tmp_path / "plot.svg"
    found = figures("--csv", str(file), "--plot", str(plot))
    assert (found["transformers"], found["fit_rows"], found["choices"]) == (200, 20, 50)
    encoder, decoder = found["parts"]
    for part in (encoder, decoder):
        model, flops = part["all_rows"][:2]
        assert (model["predictor"], model["rows"]) == ("whisperfit", 180)
        assert model["mape_worst"] < 1e-6 < flops["mape"]
        assert model["spearman"] == pytest.approx(1.0)
        assert part["without_outliers"] == []
    values = {constant["name"]: constant["value"] for constant in encoder["constants"]}
    assert values == pytest.approx({"layer": 2.0, "matrices": 4.0}, rel=1e-5)
    values = {constant["name"]: constant["value"] for constant in decoder["constants"]}
    assert values == pytest.approx({"step": 10, "layer": 5, "weights": 1, "output": 0.1, "cross": 3}, rel=1e-4)
    dots = [path.get("d", "").count("h0") for path in ElementTree.parse(plot).iter("{http://www.w3.org/2000/svg}path")]
    assert [count for count in dots if count] == [180, 20, 180, 20]


def test_outliers_count_in_the_first_figures_and_hardly_in_the_fit(tmp_path: Path) -> None:
    file = transformers(tmp_path / "slow.csv", 400, slow=24)
    encoder, decoder = figures("--csv", str(file))["parts"]
    assert (encoder["outliers"], decoder["outliers"]) == (24, 0)
    everything, usual = encoder["all_rows"][0], encoder["without_outliers"][0]
    # nine tenths of each of 24 in 400
    assert everything["mape"] == pytest.approx(0.9 * 0.06, abs=0.02)
    assert usual["mape"] < 0.02
    assert (everything["rows"], usual["rows"] <= 376) == (380, True)


@pytest.mark.parametrize("rows", [2, 3, 9, 30])
def test_few_rows_are_shared_between_fit_and_prediction(tmp_path: Path, rows: int) -> None:
    file = transformers(tmp_path / "few.csv", rows, encoder_width=512)
    found = figures("--csv", str(file))
    assert found["fit_rows"] == rows // 2
    assert found["parts"][0]["all_rows"][0]["rows"] == rows - rows // 2


def test_the_table_is_for_people(tmp_path: Path) -> None:
    done = run("--csv", str(transformers(tmp_path / "exact.csv", 100)), "--fit-rows", "10", "--seed", "5")
    assert done.returncode == 0
    assert done.stdout.startswith(
        "exact.csv: 100 transformers; constants fitted on 10 of them, 50 choices from seed 5\n"
    )
    assert "encoder, target: MAPE under 10 %" in done.stdout
    assert not done.stderr


def test_what_cannot_be_used_ends_in_one_line(tmp_path: Path) -> None:
    done = run("--csv", str(tmp_path / "none.csv"))
    assert done.returncode == 2
    assert done.stderr.startswith("error: cannot read ")
    assert len(done.stderr.splitlines()) == 1
    assert not done.stdout
    file = transformers(tmp_path / "exact.csv", 10)
    done = run("--csv", str(file), "--plot", str(tmp_path / "no folder" / "plot.svg"))
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    for flag, value in (("--fit-rows", "0"), ("--fit-rows", "1.5"), ("--seed", "-1"), ("--vocabulary", "all")):
        done = run("--csv", str(file), flag, value)
        assert done.returncode == 2
        assert "must be a whole number of at least" in done.stderr


@pytest.mark.shared
def test_the_decoders_of_the_real_transformers() -> None:
    if not SHARED.exists():
        pytest.skip(f"needs {SHARED}")
    encoder, decoder = figures("--csv", str(SHARED))["parts"]
    assert decoder["all_rows"][0]["mape_worst"] < 0.05
    assert decoder["all_rows"][0]["mape"] < decoder["all_rows"][1]["mape"] / 2
    assert encoder["outliers"] == 126
    assert encoder["without_outliers"][0]["mape_worst"] < 0.10
