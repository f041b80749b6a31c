"""Settings from TOML."""

import ast
from pathlib import Path

import pytest
import torch

from common.errors import InputError
from compression.training.settings import HIGHEST_SEED, TrainingSettings
from evaluators.speech.augmentation import generator_of


def test_keys_at_the_top_and_in_a_table_are_the_same(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('hidden = 0.5\nspeeds = [0.95, 1.05]\nnoise = "clips"\n')
    (tmp_path / "b.toml").write_text('[training]\nhidden = 0.5\nspeeds = [0.95, 1.05]\nnoise = "clips"\n')
    settings = TrainingSettings.read(tmp_path / "a.toml")
    assert settings == TrainingSettings.read(tmp_path / "b.toml")
    assert settings == TrainingSettings(hidden=0.5, speeds=(0.95, 1.05), noise=tmp_path / "clips")


def test_changes_win_over_the_file_unless_they_are_none(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("seed = 3\nsteps = 7\n")
    settings = TrainingSettings.read(tmp_path / "a.toml", seed=4, steps=None)
    assert (settings.seed, settings.steps) == (4, 7)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("temperature = 0", "temperature: .*greater than or equal to 0.1, but got 0"),
        ("patients = 3", "a.toml 'patients'. Did you mean 'patience'"),
        ("[training]\npatients = 3", "a.toml 'patients'. Did you mean 'patience'"),
        ("seed = 1\nsteps = 2\n[training]\ncopies = 1", r"'seed', 'steps' beside \[training\]: put all keys into it"),
        ("steps = true", "steps: .*valid integer, but got True"),
        ("steps = '3'", "steps: .*valid integer, but got '3'"),
        ("train_embedding = 1", "train_embedding: .*valid boolean, but got 1"),
        ("speeds = [true, 2]", "speeds.0: .*valid number, but got True"),
        ("noise = 3", "noise: .*not a valid path.*, but got 3"),
        ("noise = ''", "noise is empty"),
        ("seed = " + 5000 * "9", "cannot be read"),
        ("speeds = [1.1, 0.9]", r"speeds must be \[lowest, highest\], but got \[1.1, 0.9\]"),
        ("steps = [", "cannot be read"),
        ("training = 3", "must be a table"),
        ('part = "tail"', "part: .*but got 'tail'"),
    ],
)
def test_mistakes_are_one_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.toml").write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        TrainingSettings.read(tmp_path / "a.toml")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "within", "outside"),
    [
        ("temperature", ["0.1", "2", "100"], ["0.09", "1e300", "nan", "inf"]),
        ("soft", ["0", "1000"], ["-1", "1e4", "nan"]),
        ("learning_rate", ["1e-9", "1"], ["0", "1.1", "1e300", "nan"]),
        ("warmup", ["0", "0.9"], ["-0.1", "1", "nan"]),
        ("weight_decay", ["0", "1"], ["1.1", "nan"]),
        ("clip_norm", ["1e-3", "1e6"], ["0", "1e300", "inf"]),
        ("held_out", ["0.5"], ["0", "1", "nan"]),
        ("checkpoint_minutes", ["0.1"], ["0", "inf"]),
        ("speeds", ["[0.5, 2]", "[1, 1]"], ["[0.4, 1]", "[1, 2.1]", "[nan, 1]", "[1]", "[1, 1, 1]", "'ab'"]),
        ("snr_db", ["[-20, 100]"], ["[-1e5, 1]", "[nan, 1]", "[1, nan]", "[1, inf]"]),
        ("window_s", ["1", "30"], ["0.9", "31", "nan"]),
        ("seed", ["0", f"{2**63 - 1}"], ["-1", f"{2**63}", f"{10**30}"]),
    ],
)
def test_values_have_bounds(tmp_path: Path, key: str, within: list[str], outside: list[str]) -> None:
    for value in within:
        (tmp_path / "a.toml").write_text(f"{key} = {value}\n")
        read = getattr(TrainingSettings.read(tmp_path / "a.toml"), key)
        wanted = ast.literal_eval(value)
        assert read == (tuple(wanted) if isinstance(wanted, list) else wanted)
    for value in outside:
        (tmp_path / "a.toml").write_text(f"{key} = {value}\n")
        with pytest.raises(InputError, match=f"a.toml: {key}.*, but got"):
            TrainingSettings.read(tmp_path / "a.toml")


def test_torch_and_numpy_take_the_highest_seed() -> None:
    with torch.random.fork_rng(devices=[]):
        assert torch.manual_seed(HIGHEST_SEED).initial_seed() == HIGHEST_SEED
    first, other = (generator_of(seed, 1, "a").random() for seed in (HIGHEST_SEED, HIGHEST_SEED - 1))
    assert first != other


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        TrainingSettings.read(tmp_path / "none.toml")
