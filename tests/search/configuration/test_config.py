import tomllib
from fractions import Fraction
from pathlib import Path

import pytest
import tomli_w
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.errors import InputError
from evaluators.speech.noisy_speech import Mixing
from search.configuration.config import SearchConfig
from search.configuration.knobs import EvolutionKnobs, ScreeningKnobs
from search.limits.budget import CostLimits, WerBudget

LEAST = {"model": "tiny.en", "device": "imx8mplus", "trials": 4}


def write(folder: Path, **values: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.toml").write_text(tomli_w.dumps(values), encoding="utf-8")
    return folder / "run.toml"


def test_flags_win_over_the_file_and_the_file_over_defaults(tmp_path):
    file = write(tmp_path, **LEAST, seed=3, sampler="nsga2", wer_budget="+5%")
    config = SearchConfig.build(file, {"seed": 7, "wer_budget": None})
    assert (config.seed, config.sampler, config.wer_budget, config.objective) == (7, "nsga2", "+5%", "0.5,0.5")


def test_a_flag_of_zero_wins_too(tmp_path):
    assert SearchConfig.build(write(tmp_path, **LEAST, seed=3), {"seed": 0}).seed == 0


def test_paths_in_a_file_are_relative_to_its_folder_and_flags_to_the_current_one(tmp_path, monkeypatch):
    file = write(tmp_path / "configs", **LEAST, data="../speech.jsonl", confirm="own.jsonl", space="space.toml")
    for there in ("speech.jsonl", "configs/own.jsonl", "configs/space.toml"):
        (tmp_path / there).touch()
    monkeypatch.chdir(tmp_path / "configs")
    config = SearchConfig.build(file, {"calibration": Path("here.jsonl")})
    assert config.data == tmp_path / "speech.jsonl"
    assert config.confirm == tmp_path / "configs/own.jsonl"
    assert config.space == str(tmp_path / "configs/space.toml")
    assert config.calibration == Path("here.jsonl")


def test_noise_is_a_path_and_its_level_text_or_a_number(tmp_path):
    (tmp_path / "noise").mkdir()
    file = write(tmp_path, **LEAST, noise="noise", snr_db=10, group_budget="+30%")
    config = SearchConfig.build(file, {})
    assert (config.noise, config.snr_db) == (tmp_path / "noise", "10")
    assert config.mixing == Mixing(noise=tmp_path / "noise", levels_db=(10.0,))
    assert config.parsed_group_budget == WerBudget(value=Fraction(3, 10), is_relative=True)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.toml").write_text(config.to_toml(tmp_path / "run"), encoding="utf-8")
    again = SearchConfig.build(tmp_path / "run" / "config.toml", {})
    assert again.noise
    assert again.noise.samefile(tmp_path / "noise")
    assert (again.snr_db, again.group_budget) == ("10", "+30%")
    plain = SearchConfig.build(write(tmp_path, **LEAST), {})
    assert (plain.mixing, plain.parsed_group_budget) == (None, None)


def test_names_stay_names(tmp_path):
    config = SearchConfig.build(write(tmp_path, **LEAST, data="sample-search", space="fine"), {})
    assert (config.model, config.device, config.space) == ("tiny.en", "imx8mplus", "fine")
    assert config.data == Path("sample-search")


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"huors": 3}, "--huors .huors in a configuration file.: extra inputs are not permitted, but got 3"),
        ({"hours": -1.0}, "--hours .*greater than 0, but got -1.0"),
        ({"hours": 0.0}, "--hours .*greater than 0"),
        ({"hours": float("inf")}, "--hours .*finite"),
        ({"trials": 0}, "--trials .*greater than or equal to 1, but got 0"),
        ({"max_size_mb": -3.0}, "--max-size-mb .*got -3.0"),
        ({"hours": float("nan")}, "--hours .*finite"),
        ({"hours": 1e9}, "--hours .*less than or equal to 8784"),
        ({"trials": 10**9}, "--trials .*less than or equal to 1000000"),
        ({"threads": 0}, "--threads .*greater than or equal to 1, but got 0"),
        ({"threads": 10**6}, "--threads .*less than or equal to 4096"),
        ({"seed": 2**32}, "--seed .*less than 4294967296"),
        ({"max_size_mb": float("inf")}, "--max-size-mb .*finite"),
        ({"max_size_mb": 75_600_000.0}, "--max-size-mb .*less than or equal to 1000000"),
        ({"max_latency_ms": 1e9}, "--max-latency-ms .*less than or equal to 3600000"),
        ({"max_rtf": 1e6}, "--max-rtf .*less than or equal to 1000"),
        ({"max_memory_mb": 1e12}, "--max-memory-mb .*less than or equal to 100000000"),
        ({"max_occupancy": 15.0}, "--max-occupancy .*less than or equal to 1, but got 15.0"),
        ({"reference_seconds": float("nan")}, "--reference-seconds .*got nan"),
        ({"calibration_utterances": 10**9}, "--calibration-utterances .*less than or equal to 100000"),
        ({"max_occupancy": 0.0}, "--max-occupancy .*greater than 0, but got 0.0"),
        ({"latency_confidence": 1.0}, "--latency-confidence .*less than 1, but got 1.0"),
        ({"latency_confidence": 90.0}, "--latency-confidence .*less than 1, but got 90.0"),
        ({"latency_confidence": 0.0}, "--latency-confidence .*greater than 0, but got 0.0"),
        ({"sampler": "tpee"}, "--sampler .*'tpe', 'nsga2', 'random', 'evolution' or 'grid', but got 'tpee'"),
        ({"seed": "x"}, "--seed .*integer.* got 'x'"),
        ({"reference_seconds": 31.0}, "--reference-seconds .*less than or equal to 30"),
        ({"wer_budget": "-3%"}, "negative"),
        ({"objective": "0,0"}, "objective"),
    ],
)
def test_a_bad_value_is_named_on_one_line(changes, complaint, tmp_path):
    for build in (
        lambda: SearchConfig.build(write(tmp_path, **LEAST | changes), {}),
        lambda: SearchConfig.build(None, LEAST | changes),
    ):
        with pytest.raises(InputError, match=complaint) as raised:
            build()
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize("key", ["model", "device"])
def test_what_is_missing_is_named(key):
    with pytest.raises(InputError, match=f"--{key} .*field required"):
        SearchConfig.build(None, {name: value for name, value in LEAST.items() if name != key})


def test_a_run_needs_an_end():
    with pytest.raises(InputError, match="give --hours, --trials or both"):
        SearchConfig.build(None, LEAST | {"trials": None})


@pytest.mark.parametrize("content", [None, b"model = ", b"model = '\xff'"])
def test_a_file_that_cannot_be_read_is_named(content, tmp_path):
    if content is not None:
        (tmp_path / "run.toml").write_bytes(content)
    with pytest.raises(InputError, match="configuration .*run.toml: cannot be read"):
        SearchConfig.build(tmp_path / "run.toml", LEAST)


PATHS = st.sampled_from(["sample", "sample-confirm", "speech.jsonl", "deep/er/speech.jsonl"])
POSITIVE = st.none() | st.floats(1e-3, 1e6)
CONFIGS = st.fixed_dictionaries(
    {
        "model": st.sampled_from(["tiny.en", "models/own.pt"]),
        "device": st.sampled_from(["imx8mplus", "deep/board.toml"]),
        "data": PATHS.map(Path),
        "confirm": st.none() | PATHS.map(Path),
        "space": st.sampled_from(["coarse", "space.toml"]),
        "wer_budget": st.sampled_from(["+10%", "8.5%", "+ 0%".replace(" ", "")]),
        "trials": st.integers(1, 10**6),
        "hours": st.none() | st.floats(1e-3, 8784),
        "max_size_mb": POSITIVE,
        "min_language_accuracy": st.none() | st.floats(1e-3, 1),
        "seed": st.integers(0, 2**31),
        "skip_broken": st.booleans(),
        "language": st.none() | st.text(min_size=1),
    }
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(flags=CONFIGS, absolute=st.booleans(), out=st.sampled_from(["run", "results/a/b", "."]))
def test_config_toml_is_the_same_configuration(flags, absolute, out, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for there in ("speech.jsonl", "deep/er/speech.jsonl", "models/own.pt", "deep/board.toml", "space.toml"):
        (tmp_path / there).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / there).touch()
    folder = tmp_path / out if absolute else Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    config = SearchConfig.build(None, flags)
    (folder / "config.toml").write_text(config.to_toml(folder), encoding="utf-8")
    again = SearchConfig.build(folder / "config.toml", {})
    assert located(again) == located(config)
    monkeypatch.chdir("/")
    if absolute:
        assert located(SearchConfig.build(folder / "config.toml", {}), tmp_path) == located(config, tmp_path)


def located(config: SearchConfig, folder: Path = Path()) -> dict[str, object]:
    """Every value; those that are paths of files, absolute."""
    values = config.model_dump()
    for key in ("data", "confirm", "calibration", "model", "device", "space"):
        if values[key] is not None and (folder / values[key]).exists():
            values[key] = (folder / values[key]).resolve()
    return {key: str(value) for key, value in values.items()}


def test_memory_is_at_most_what_the_device_has():
    def limits(**flags: float) -> CostLimits:
        return SearchConfig.build(None, LEAST | flags).cost_limits(512.0)

    assert limits() == CostLimits(max_memory_mb=512)
    assert limits(max_memory_mb=100) == CostLimits(max_memory_mb=100)
    assert limits(max_memory_mb=9999, max_rtf=0.3) == CostLimits(max_memory_mb=512, max_rtf=0.3)
    assert limits(max_occupancy=0.15, latency_confidence=0.9) == CostLimits(
        max_memory_mb=512, max_occupancy=0.15, latency_confidence=0.9
    )


def test_the_normaliser_is_kept_with_the_run(tmp_path):
    config = SearchConfig.build(None, LEAST | {"normaliser": "no-diacritics"})
    (tmp_path / "config.toml").write_text(config.to_toml(tmp_path), encoding="utf-8")
    assert SearchConfig.build(tmp_path / "config.toml", {}).normaliser == "no-diacritics"
    assert SearchConfig.build(None, LEAST).normaliser == "whisper"
    with pytest.raises(InputError, match="--normaliser .*'whisper', 'basic', 'none' or 'no-diacritics'.*'wisper'"):
        SearchConfig.build(None, LEAST | {"normaliser": "wisper"})


def test_only_evolution_judges_recordings_without_transcripts(tmp_path):
    least = {"model": "base", "device": "rpi4", "trials": 1, "unlabelled": tmp_path}
    assert SearchConfig.build(None, least).unlabelled == tmp_path
    for other in ({"engine": "steps"}, {"engine": "optuna"}, {"sampler": "tpe"}):
        with pytest.raises(InputError, match="--unlabelled: the engine .* does not judge by divergence"):
            SearchConfig.build(None, least | other)


EVENING = {"model": "base", "device": "rpi4", "hours": 2, "calibration": Path("sample-confirm")}


@pytest.mark.parametrize(
    ("changes", "recover", "share", "patience"),
    [
        ({}, "auto", 0.4, 600),
        ({"hours": 1.9}, "off", None, 600),
        ({"hours": 0.5, "recover": "auto", "recover_share": 0.2, "patience": 50}, "auto", 0.2, 50),
        ({"recover": "off"}, "off", None, 600),
        ({"calibration": None}, "off", None, 600),
        ({"calibration": None, "unlabelled": Path("sample")}, "auto", 0.4, 600),
        ({"hours": None, "trials": 9}, "off", None, 600),
        ({"engine": "optuna"}, "off", None, None),
    ],
)
def test_a_new_run_settles_recovery_and_patience_and_its_file_shows_them(tmp_path, changes, recover, share, patience):
    config = SearchConfig.build(None, EVENING | changes).settled()
    (tmp_path / "config.toml").write_text(config.to_toml(tmp_path), encoding="utf-8")
    again = SearchConfig.build(tmp_path / "config.toml", {})
    assert (again.recover, again.recover_share, again.patience) == (recover, share, patience)
    assert again.settled() == again


def test_the_knobs_of_the_default_engine_are_in_the_file_of_a_new_run(tmp_path):
    given = write(tmp_path, **EVENING | {"calibration": "sample", "evolution": {"children": 96}})
    config = SearchConfig.build(given, {}).settled()
    assert config.evolution == EvolutionKnobs(children=96)
    shown = tomllib.loads(config.to_toml(tmp_path))
    assert shown["evolution"] == EvolutionKnobs(children=96).model_dump()
    assert shown["screening"] == ScreeningKnobs().model_dump()
    assert "evolution" not in SearchConfig.build(None, LEAST | {"engine": "optuna"}).settled().to_toml(tmp_path)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"evolution": {"children": 0}}, "evolution.children: .* greater than or equal to 1, but got 0"),
        ({"evolution": {"childs": 9}}, "evolution.childs: extra inputs are not permitted"),
        ({"screening": {"scored_share": 2}}, "screening.scored_share: .* less than or equal to 1"),
        ({"engine": "optuna", "screening": {}}, "the engine optuna has none of these"),
    ],
)
def test_a_knob_out_of_its_range_is_one_line(tmp_path, table, message):
    with pytest.raises(InputError, match=message):
        SearchConfig.build(write(tmp_path, **LEAST | table), {})


def test_only_missing_speech_is_worth_a_note():
    def lacks(**changes: object) -> bool:
        return SearchConfig.build(None, EVENING | changes).lacks_speech_to_train_on

    assert lacks(calibration=None)
    assert not any((lacks(), lacks(calibration=None, hours=1), lacks(calibration=None, recover="off")))


def test_a_run_from_before_recovery_has_none(tmp_path):
    config = SearchConfig.build(write(tmp_path, **LEAST | {"hours": 8, "calibration": "sample"}), {})
    assert (config.recover, config.recover_share, config.patience) == (None, None, None)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"recover": "auto", "engine": "steps"}, "--recover auto: the engine steps does not judge by divergence"),
        ({"recover": "auto", "hours": None, "trials": 4}, "--recover auto: .* give --hours too"),
        ({"recover": "auto", "calibration": None}, "--recover auto: there is no speech to train on"),
        ({"patience": 9, "engine": "steps"}, "--patience: the engine steps has no front of divergence"),
        ({"recover": "on"}, r"--recover \(recover in a configuration file\): input should be 'auto' or 'off'"),
        ({"recover_share": 1}, "--recover-share .* less than or equal to 0.9"),
        ({"patience": 0}, "--patience .* greater than or equal to 1"),
    ],
)
def test_a_recovery_or_patience_that_cannot_be_is_refused(changes, complaint):
    with pytest.raises(InputError, match=complaint):
        SearchConfig.build(None, EVENING | changes)
