"""A name stays a name although a folder of that name exists; a path stays a path although the name is known."""

from pathlib import Path

import pytest
import whisper
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.errors import InputError
from devices.profile import load_profile
from evaluators.speech.speech_set import SAMPLES, load_speech_set
from search.configuration.config import SearchConfig
from search.configuration.name_or_path import NAMES, recorded, settled, speech_path

LEAST = {"model": "base", "device": "rpi4", "trials": 1}
EXAMPLES = {
    "model": "base",
    "device": "rpi4.toml",
    "space": "coarse",
    "data": "sample",
    "calibration": "sample-confirm",
    "unlabelled": "sample",
}


def saved(config: SearchConfig, folder: Path) -> SearchConfig:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.toml").write_text(config.to_toml(folder), encoding="utf-8")
    return SearchConfig.build(folder / "config.toml", {})


def test_the_models_names_are_those_of_openai_whisper():
    assert set(NAMES["model"]) == set(whisper.available_models())


def test_a_name_stays_a_name_although_the_runs_folder_has_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("base", "rpi4", "coarse", "sample"):
        (tmp_path / name).mkdir()
    config = SearchConfig.build(None, LEAST | {"data": "sample", "space": "coarse"})
    again = saved(config, Path("base"))
    for read in (config, again):
        assert (read.model, read.device, read.space, str(read.data)) == ("base", "rpi4", "coarse", "sample")


@pytest.mark.parametrize(("key", "name"), EXAMPLES.items())
@pytest.mark.parametrize("out", ["run", ".", "deep/er/run", "base"])
def test_a_path_stays_a_path_although_the_name_is_known(key, name, out, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).touch()
    (tmp_path / "elsewhere").mkdir()
    out = "run-base" if out == name else out
    config = SearchConfig.build(None, LEAST | {key: f"./{name}"})
    assert str(getattr(config, key)) == str(tmp_path / name)
    again = saved(config, Path(out))
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert getattr(again, key) == getattr(config, key)
    assert getattr(SearchConfig.build(tmp_path / out / "config.toml", {}), key) == getattr(config, key)


def test_a_built_in_sample_is_told_from_a_folder_of_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sample").mkdir()
    assert speech_path("sample") == Path("sample")
    assert len(load_speech_set(speech_path("sample")).utterances) == 32
    assert speech_path("./sample") == tmp_path / "sample"
    with pytest.raises(InputError, match="sample"):
        load_speech_set(speech_path("./sample"))


def test_a_path_that_is_not_there_is_no_name_either(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert settled("./base", NAMES["model"]) == str(tmp_path / "base")
    assert settled("bsae", NAMES["model"]) == "bsae", "whoever needs it says what is known"


def test_an_own_profile_of_a_known_name_is_not_called_by_it(tmp_path):
    (tmp_path / "rpi4.toml").write_text(Path("devices/profiles/rpi4.toml").read_text(encoding="utf-8"), "utf-8")
    assert load_profile(str(tmp_path / "rpi4.toml")).name == "rpi4.toml"
    assert load_profile("rpi4").name == "rpi4"


def test_links_are_followed_to_where_a_run_really_lies(tmp_path, monkeypatch):
    (tmp_path / "disk" / "deep" / "runs").mkdir(parents=True)
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "runs").symlink_to(tmp_path / "disk" / "deep" / "runs")
    (tmp_path / "work" / "mine.pt").touch()
    monkeypatch.chdir(tmp_path / "work")
    config = SearchConfig.build(None, LEAST | {"model": "mine.pt"})
    saved(config, Path("runs/a"))
    for way in (tmp_path / "work" / "runs", tmp_path / "disk" / "deep" / "runs"):
        assert SearchConfig.build(way / "a" / "config.toml", {}).model == str(tmp_path / "work" / "mine.pt")


@pytest.mark.parametrize("given_text", ["~nobody-of-this-name/x", "a" * 5000, "a\0b"])
def test_what_no_folder_can_hold_is_no_traceback(given_text):
    try:
        settled(given_text, NAMES["model"])
    except InputError as error:
        assert "\n" not in str(error)  # noqa: PT017 - either is right


TEXTS = st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\0/~"), min_size=1, max_size=20)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=TEXTS | st.sampled_from(sorted(SAMPLES)), key=st.sampled_from(sorted(NAMES)))
def test_what_is_recorded_is_read_again(text, key, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # away from the project's own folders
    names = NAMES[key]
    for value in (settled(text, names, tmp_path), settled(f"./{text}", names, tmp_path)):
        assert settled(recorded(value, names, tmp_path / "run"), names, tmp_path / "run") == value
