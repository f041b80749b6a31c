"""Text before a window, against openai-whisper's `prompt`."""

import pytest
import whisper

from compression.whisper.load import LoadedModel
from runtime.audio import Floats
from runtime.mel import WINDOW_SAMPLES
from runtime.transcribe import Transcriber
from tests.runtime.conftest import tensor


@pytest.mark.parametrize("text", ["Glossary: Kletke, D'Artagnan.", "so there he was with no big letters " * 60])
def test_the_text_after_a_prompt_is_the_originals(
    tiny: Transcriber, tiny_en: LoadedModel, clips: list[Floats], text: str
) -> None:
    samples = clips[0]
    mel = whisper.log_mel_spectrogram(tensor(samples), padding=WINDOW_SAMPLES - len(samples))
    options = whisper.DecodingOptions(language="en", without_timestamps=True, prompt=text, fp16=False)
    expected = whisper.decode(tiny_en.network, mel, options)
    said = tiny.transcribe(samples, prompt=text)
    assert said.text == expected.text
    assert said.segments[0].avg_logprob == pytest.approx(expected.avg_logprob, abs=1e-3)


def test_hotwords_come_before_every_piece_and_a_prompt_before_the_first(
    tiny: Transcriber, clips: list[Floats], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, hear = [], tiny.hear

    def spied(*args: object, previous: tuple[int, ...], **others: object) -> object:
        seen.append(tiny.artifact.vocabulary.text(previous))
        return hear(*args, previous=previous, **others)  # type: ignore[arg-type]

    monkeypatch.setattr(tiny, "hear", spied)
    tiny.transcribe(clips[0], prompt="Dear Sir.", hotwords="Kletke")
    tiny.transcribe(clips[0], hotwords="Kletke")
    assert seen[0] == " Dear Sir. Kletke"
    assert set(seen[1:]) == {" Kletke"}


def test_without_a_prompt_nothing_comes_before(tiny: Transcriber) -> None:
    assert tiny.before("  ") == ()
