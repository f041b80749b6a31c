"""Settings from TOML."""

from pathlib import Path

import pytest

from common.errors import InputError
from compression.training.settings import TrainingSettings


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
        ("temperature = 0", "temperature: .*greater than 0, but got 0"),
        ("patients = 3", "patients: extra inputs"),
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


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        TrainingSettings.read(tmp_path / "none.toml")
