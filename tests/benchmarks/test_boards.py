"""Reading rows of measured latencies, and the boards' model on made-up measurements."""

import csv
import json
import sys
from math import isclose
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS / "latency"))

import predictor_whisper_boards as script  # noqa: E402
from boards_chips import CHIPS_FILE, find_chip, parse_clusters  # noqa: E402
from boards_fit import fit  # noqa: E402
from boards_model import PRIORS, flops, load_of, predict_ms  # noqa: E402
from boards_rows import COLUMNS, Case, Refused, audio_seconds, is_whisper, read_case, read_rows  # noqa: E402

ROW = {
    "device": "Raspberry Pi 4",
    "soc": "BCM2711",
    "cores_used": "4xA72",
    "threads": "4",
    "runtime": "whisper.cpp NEON",
    "model": "whisper tiny.en",
    "precision": "fp16",
    "stage": "encoder 30s",
    "latency_ms": "1000",
    "source": "ggml-org/whisper.cpp issue #89 (somebody 2023-11-03)",
}


def case(**changes: str) -> Case:
    found = read_case(ROW | changes)
    assert isinstance(found, Case)
    return found


def test_every_known_chip_has_cores() -> None:
    with CHIPS_FILE.open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            assert len(parse_clusters(row["clusters"])) == row["clusters"].count("+") + 1, row
            assert float(row["memcpy_gb_s"]) > 0
            assert float(row["cache_kb"]) > 0
            assert row["source"]


@pytest.mark.parametrize(
    ("device", "soc", "cores", "name", "fastest"),
    [
        ("Raspberry Pi 4 2GB", "BCM2711", "4xA72", "BCM2711", "4xA72"),
        ("Raspberry Pi 400", "BCM2711", "4xA72", "BCM2711", "4xA72"),
        ("Raspberry Pi 3B+ 1GB", "BCM2837B0", "4xA53", "BCM2837B0", "4xA53"),
        ("Raspberry Pi 3B", "", "CPU", "BCM2837", "4xA53"),
        ("Raspberry Pi Zero 2 W", "", "", "RP3A0", "4xA53"),
        ("RPi 5", "", "all", "BCM2712", "4xA76"),
        ("Orange Pi 5 8GB", "RK3588S", "4xA76", "RK3588", "4xA76"),
        ("Orange Pi 5 Plus", "unknown", "unknown", "RK3588", "4xA76"),
        ("Radxa Rock 5B", "", "", "RK3588", "4xA76"),
        ("board", "RK3566", "4xA55@1.8", "RK3566", "4xA55"),
        ("ROCK 3A", "RK3568", "", "RK3568", "4xA55"),
        ("NXP i.MX 8M Plus EVK", "i.MX 8M Plus", "4xA53@1.8", "i.MX 8M Plus", "4xA53"),
        ("NXP i.MX 95 EVK", "i.MX 95", "6xA55", "i.MX 95", "6xA55"),
        ("Jetson Nano", "Tegra X1", "4xA57", "Jetson Nano", "4xA57"),
        ("Jetson Orin Nano", "", "CPU", "Jetson Orin Nano", "6xA78"),
        ("Redmi Note 9S", "SM7125 (SD720G)", "2xA76+6xA55", "SD 732G", "2xA76"),
        ("Pixel 7 Pro", "Tensor G2", "unknown", "Tensor G2", "2xX1"),
        ("Galaxy S24", "", "", "SD 8 Gen 3", "1xX4"),
        ("Orange Pi 4 LTS", "", "", "RK3399", "2xA72"),
        ("Orange Pi Zero 2W", "H618", "", "H618", "4xA53"),
        ("phone", "Snapdragon 888", "", "SD 888", "1xX1"),
        ("some board", "unheard of", "4x Cortex-A73", "4xA73", "4xA73"),
    ],
)
def test_chips_are_found(device: str, soc: str, cores: str, name: str, fastest: str) -> None:
    chip = find_chip(device, soc, cores)
    assert chip is not None
    assert (chip.name.split(" (")[0], f"{chip.clusters[0].count}x{chip.clusters[0].core.name}") == (name, fastest)


def test_an_unknown_core_is_refused_with_the_reason() -> None:
    found = read_case(ROW | {"device": "Android phone", "soc": "unknown", "cores_used": "unknown"})
    assert isinstance(found, Refused)
    assert "unknown core" in found.reason


def test_threads_fill_the_fastest_cores_first() -> None:
    chip = find_chip("", "RK3588", "")
    assert chip is not None
    assert [(c.count, c.core.name) for c in chip.cores(6)] == [(4, "A76"), (2, "A55")]


@pytest.mark.parametrize(
    ("stage", "windows", "tokens", "end_to_end"),
    [
        ("encoder 30s", 1, 0, False),
        ("Enc.", 1, 0, False),
        ("encode", 1, 0, False),
        ("decoder per token", 0, 1, False),
        ('"Decode" column as posted (token count not stated)', 0, 27, False),
        ("end-to-end 11s audio", 1, 27, True),
        ("end-to-end jfk.wav", 1, 27, True),
        ("end-to-end 6180 ms audio", 1, 2 + 2.5 * 6.18, True),
        ("end-to-end 48s audio", 2, 122, True),
        ("end-to-end 1 min audio", 2, 152, True),
        ("transcription time after end of 3s speech", 1, 9.5, True),
        ("mean response latency per phrase (1-10 s phrases)", 1, 15.75, True),
        ("whole graph, random input", 1, 27, True),
        ("something else", 1, 27, True),
    ],
)
def test_stages(stage: str, windows: int, tokens: float, end_to_end: bool) -> None:
    found = case(stage=stage)
    assert (found.windows, found.end_to_end) == (windows, end_to_end)
    assert isclose(found.tokens, tokens)


def test_a_real_time_factor_is_a_time_per_second_of_audio() -> None:
    constants = {name: prior.median for name, prior in PRIORS.items()}
    whole, factor = case(stage="end-to-end 20s audio"), case(stage="RTF x 1000, 20s audio")
    assert isclose(predict_ms(whole, constants), 20 * predict_ms(factor, constants))


@pytest.mark.parametrize(
    ("runtime", "precision", "family", "bits"),
    [
        ("whisper.cpp NEON", "fp16", "whisper.cpp", 16),
        ("whisper.cpp NEON+OpenBLAS", "fp16", "whisper.cpp BLAS", 16),
        ("whisper.cpp", "q5_0", "whisper.cpp", 5.5),
        ("faster-whisper (CTranslate2)", "int8", "CTranslate2", 8.5),
        ("faster-whisper", "unknown", "CTranslate2", 32),
        ("TFLite slim", "tflite", "TFLite", 8.5),
        ("openai-whisper PyTorch", "fp32", "PyTorch", 32),
        ("ONNX Runtime (sherpa-onnx)", "int8", "ONNX Runtime", 8.5),
        ("mystery", "", "other", 32),
    ],
)
def test_runtimes(runtime: str, precision: str, family: str, bits: float) -> None:
    found = case(runtime=runtime, precision=precision, source="x")
    assert (found.family, found.weights) == (family, bits)


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("whisper tiny", "tiny"),
        ("whisper base.en", "base.en"),
        ("whisper-small.en", "small.en"),
        ("ggml-medium-q5_0 whisper", "medium"),
        ("whisper large-v3", "large-v3"),
        ("whisper large v3 turbo", "large-v3-turbo"),
        ("whisper turbo", "large-v3-turbo"),
        ("whisper-tiny.tflite (full generate graph)", "tiny"),
    ],
)
def test_models(model: str, name: str) -> None:
    assert case(model=model).model == name


def test_whisper_cpp_multiplies_in_blocks_since_autumn_2023() -> None:
    assert case().blocked
    assert not case(source="ggml-org/whisper.cpp issue #89 (j1nx 2022-12-13)").blocked
    assert not case(source="ggml-org/whisper.cpp issue #518").blocked
    assert case(source="ggml-org/whisper.cpp issue #3491").blocked


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"cores_used": "NPU"}, "NPU is no CPU"),
        ({"runtime": "Qualcomm qnn_context_binary"}, "is no CPU"),
        ({"runtime": "whisper.cpp Vulkan"}, "Vulkan is no CPU"),
        ({"latency_ms": ""}, "not a number"),
        ({"latency_ms": "-1"}, "finite and positive"),
        ({"latency_ms": "nan"}, "finite and positive"),
        ({"stage": "model load"}, "not a stage of inference"),
    ],
)
def test_what_is_not_modelled_is_listed(changes: dict[str, str], why: str) -> None:
    found = read_case(ROW | changes)
    assert isinstance(found, Refused)
    assert why in found.reason


def test_seconds_in_stages() -> None:
    assert audio_seconds("end-to-end 3.6s audio") == 3.6
    assert audio_seconds("6180 ms") == 6.18
    assert audio_seconds("2 minutes of audio") == 120
    assert audio_seconds("encoder") is None


def test_other_networks_are_not_whisper() -> None:
    assert is_whisper(ROW)
    assert not is_whisper(ROW | {"model": "resnet50"})


def test_arithmetic_of_a_case_is_the_published_one() -> None:
    # 36.94 GFLOP of encoder (device-facts.md) and 2 x 4 layers x 1500 x 384^2 x 2 of cross-attention's keys and values
    assert isclose(flops(case()), 36.94e9 + 2 * 2 * 4 * 1500 * 384**2, rel_tol=1e-3)
    # multiply-adds of a token are its matrices: (4 + 2 + 8) 384^2 a layer, and the vocabulary
    assert load_of("tiny.en").token_weights == 4 * 14 * 384**2 + 51864 * 384


def made_up(constants: dict[str, float]) -> list[Case]:
    """Rows that the model explains without an error."""
    chips = (("BCM2711", "4xA72"), ("BCM2712", "4xA76"), ("RK3566", "4xA55"), ("BCM2837", "4xA53"))
    rows = [
        ROW
        | {
            "soc": soc,
            "device": soc,
            "cores_used": cores,
            "runtime": runtime,
            "model": f"whisper {size}",
            "stage": stage,
        }
        for soc, cores in chips
        for runtime in ("whisper.cpp", "openai-whisper PyTorch")
        for size in ("tiny", "small")
        for stage in ("encoder 30s", "decoder per token", "end-to-end 11s audio")
    ]
    cases = [read_case(row) for row in rows]
    return [
        case(**(c.row | {"latency_ms": str(predict_ms(c, constants))}))  # type: ignore[arg-type]
        for c in cases
        if isinstance(c, Case)
    ]


def test_fitting_recovers_what_rows_tell() -> None:
    true = {name: prior.median for name, prior in PRIORS.items()}
    true["encoder PyTorch"] *= 1.3
    true["scores"] *= 1.5
    cases = made_up(true)
    fitted = fit(cases)
    for case in cases:
        assert isclose(fitted.model_ms(case), case.measured_ms, rel_tol=0.12)
    assert fitted.log_stds["scores"] < PRIORS["scores"].log_std


def test_without_rows_the_priors_serve() -> None:
    fitted = fit([])
    assert fitted.constants == {name: prior.median for name, prior in PRIORS.items()}
    assert fitted.flops_ms(case()) is None


def write(file: Path, rows: list[dict[str, str]]) -> Path:
    with file.open("w", encoding="utf-8", newline="") as text:
        writer = csv.DictWriter(text, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    return file


def test_a_chip_is_left_out_of_its_own_constants(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Rows of two chips, one of which is ten times slower than anything: the other's constants bear it, not its own."""
    constants = {name: prior.median for name, prior in PRIORS.items()}
    rows = [dict(c.row) for c in made_up(constants)]
    slow = [row | {"latency_ms": str(10 * float(row["latency_ms"]))} for row in rows if row["soc"] == "BCM2711"]
    file = write(tmp_path / "rows.csv", [row for row in rows if row["soc"] != "BCM2711"] + slow)
    assert script.main(["--csv", str(file), "--fit", str(file), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    left_out = [row["model_factor"] for row in report["rows"] if row["chip"] == "BCM2711"]
    assert all(isclose(factor, 0.1, rel_tol=0.05) for factor in left_out)
    assert report["arm"]["model"]["rows"] == len(rows)
    assert len(report["off_by_more_than_1.5"]) >= 1


def test_rows_of_any_kind_do_not_crash(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    odd = [
        dict.fromkeys(COLUMNS, "") | {"model": "whisper"},
        ROW | {"threads": "lots", "stage": "", "precision": "??", "cores_used": "8 cores"},
        ROW | {"device": "NPU board", "cores_used": "NPU"},
        ROW | {"model": "Whisper LARGE-V3", "stage": "RTF"},
    ]
    file = write(tmp_path / "odd.csv", odd)
    assert script.main(["--csv", str(file), "--fit", str(file), "--rows"]) == 0
    out = capsys.readouterr().out
    assert "Not predicted" in out
    assert "NPU is no CPU" in out


WORDS = st.lists(
    st.sampled_from(
        [
            *("4xA76", "0xA53", "2x", "@1.8.2", "A55@0", "8c", "unknown", "RK3588", "Pi", "5", "whisper", "tiny"),
            *("large-v3", "int8", "q5_1", "encoder", "decoder", "per token", "RTF", "1.2.3 s", "0 s", "48s", "-1"),
            *("per second of audio", "2022-12", "issue #0", "issue #9999", "(", "+", "little cores", "", "é"),
        ]
    ),
    max_size=5,
).map(" ".join)


@given(st.fixed_dictionaries({column: WORDS for column in COLUMNS if column != "latency_ms"}))
def test_any_text_is_predicted_or_refused(texts: dict[str, str]) -> None:
    found = read_case(texts | {"latency_ms": "1000"})
    if isinstance(found, Case):
        constants = {name: prior.median for name, prior in PRIORS.items()}
        assert 0 < predict_ms(found, constants) < float("inf")
        assert flops(found) > 0


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (None, "cannot be read"),
        ("device,soc\n", "no column cores_used"),
        (",".join(COLUMNS) + "\n", "no rows of Whisper"),
    ],
)
def test_bad_files_are_one_line(text: str | None, why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "rows.csv"
    if text is not None:
        file.write_text(text, encoding="utf-8")
    assert script.main(["--csv", str(file)]) == 2
    error = capsys.readouterr().err
    assert why in error
    assert error.count("\n") == 1


def test_committed_results_serve_where_the_measurements_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script, "DEFAULT_FIT", tmp_path / "absent.csv")
    file = write(tmp_path / "rows.csv", [ROW])
    assert script.main(["--csv", str(file)]) == 0


@pytest.mark.shared
def test_published_measurements() -> None:
    if not script.DEFAULT_FIT.exists():
        pytest.skip(f"{script.DEFAULT_FIT} is not there")
    cases, refused = script.whisper_cases(script.DEFAULT_FIT)
    rows = [row for row in read_rows(script.DEFAULT_FIT) if is_whisper(row)]
    assert len(cases) + len(refused) == len(rows) == 219
    fits = script.Fits.of(cases)
    known = [p for p in map(fits.predict, cases) if p.has_known_size]
    found = script.summary(known)
    model, alone = found["model"], found["flops"]
    assert model is not None
    assert alone is not None
    assert model.typical < 1.5 < alone.typical
