"""Which sounds `verify` has the original listen to."""

from types import SimpleNamespace

from evaluators.accuracy.sounds import BATTERY
from search.commands import verify
from search.report.group_and_silence_notes import SOUNDS


def test_the_original_listens_only_where_the_artifact_spoke(monkeypatch):
    asked = []

    def listens(network, samples):
        asked.append((network, samples.tobytes()))
        return ""

    monkeypatch.setattr(verify, "original_transcribes", listens)
    said = SimpleNamespace(on_silence="", on_quiet="", on_noise="you", on_sounds={"a click": "", "loud hum": "Mm."})
    heard = verify._heard_in_nothing(said, "the original")
    assert [(one.sound, one.text) for one in heard] == [("noise", "you"), ("loud hum", "Mm.")]
    assert asked == [("the original", BATTERY[name]().tobytes()) for name in ("noise", "loud hum")]
    assert heard[0].note == "hears 'you' in noise, where the original hears nothing"


def test_every_column_names_a_sound_of_the_battery():
    assert set(SOUNDS.values()) <= BATTERY.keys()
