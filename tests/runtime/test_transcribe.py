"""Fallback, silence, long audio and language detection."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import jiwer
import numpy as np
import pytest
import torch
import whisper
from whisper.decoding import DecodingResult
from whisper.model import Whisper
from whisper.normalizers import EnglishTextNormalizer

from evaluators.speech.speech_set import SpeechSet
from runtime import transcribe
from runtime.artifact import Artifact
from runtime.audio import SAMPLE_RATE, Floats
from runtime.decoding import Decoded, DecodingOptions, Ids
from runtime.errors import OptionError
from runtime.mel import log_mel
from runtime.transcribe import TEMPERATURES, Transcriber
from runtime.unheard import Listening
from tests.runtime.conftest import tensor
from tests.runtime.cuts import cut
from tests.runtime.fakes import END, NO_SPEECH, VOCABULARY, FakeModel, FakeText

SPEECH = np.random.default_rng(0).normal(0, 0.1, 3 * SAMPLE_RATE).astype(np.float32)


def fake_artifact() -> Artifact:
    return Artifact(
        folder=Path(), model="fake", recipe_id="0", n_mels=80, n_text_ctx=448, window_s=5.0, vocabulary=VOCABULARY
    )


def fake_transcriber(no_speech_prob: float = 0.1) -> Transcriber:
    """Its start token's logits give the no-speech token the probability."""
    odds = np.log(no_speech_prob / (1 - no_speech_prob) * (VOCABULARY.size - 1))
    logits = [odds if token == NO_SPEECH else 0.0 for token in range(VOCABULARY.size)]
    return Transcriber(FakeModel(lambda _: logits), fake_artifact())


@dataclass(frozen=True, kw_only=True)
class Script:
    """What decoding gives at each temperature: compression ratio and average log-probability."""

    answers: tuple[tuple[float, float], ...]
    no_speech_prob: float = 0.1


GOOD, REPETITIVE, IMPROBABLE = (1.2, -0.3), (3.0, -0.3), (1.2, -1.5)
SCRIPTS = [
    Script(answers=(GOOD,)),
    Script(answers=(REPETITIVE, GOOD)),
    Script(answers=(IMPROBABLE, REPETITIVE, IMPROBABLE, GOOD)),
    Script(answers=(IMPROBABLE,) * 6),
    Script(answers=(REPETITIVE,) * 5 + (GOOD,)),
    Script(answers=(IMPROBABLE, GOOD), no_speech_prob=0.9),
    Script(answers=(REPETITIVE, IMPROBABLE, GOOD), no_speech_prob=0.9),
    Script(answers=((3.0, -1.5), GOOD), no_speech_prob=0.9),
    Script(answers=(GOOD,), no_speech_prob=0.9),
    Script(answers=((2.39, -0.99),), no_speech_prob=0.5),
]


def scripted(script: Script) -> Callable[[float], tuple[str, float, float, float]]:
    def answer(temperature: float) -> tuple[str, float, float, float]:
        ratio, logprob = script.answers[TEMPERATURES.index(temperature)]
        return f"said at {temperature:g}", ratio, logprob, temperature

    return answer


def whisper_transcribes(script: Script) -> str:
    """What whisper.transcribe makes of 3 s when its model's decoding gives the script's answers."""
    answer = scripted(script)

    def decode(_: torch.Tensor, options: whisper.DecodingOptions) -> DecodingResult:
        text, ratio, logprob, temperature = answer(options.temperature)
        tokens = whisper.tokenizer.get_tokenizer(False).encode(text)
        return DecodingResult(
            audio_features=torch.zeros(0),
            language="en",
            tokens=tokens,
            text=text,
            avg_logprob=logprob,
            no_speech_prob=script.no_speech_prob,
            temperature=temperature,
            compression_ratio=ratio,
        )

    dims = SimpleNamespace(n_mels=80, n_audio_ctx=1500, n_text_ctx=448)
    model = SimpleNamespace(
        decode=decode, dims=dims, is_multilingual=False, num_languages=0, device=torch.device("cpu")
    )
    return str(whisper.transcribe(model, SPEECH, fp16=False, condition_on_previous_text=False)["text"])


@pytest.mark.parametrize("script", SCRIPTS)
def test_fallback_is_that_of_whisper(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = scripted(script)

    def decode(_opening: object, _vocabulary: object, options: DecodingOptions) -> Decoded:
        text, ratio, logprob, temperature = answer(options.temperature)
        return Decoded(
            text=text,
            tokens=(0,),
            ending="complete",
            temperature=temperature,
            avg_logprob=logprob,
            compression_ratio=ratio,
        )

    monkeypatch.setattr(transcribe, "decode", decode)
    transcript = fake_transcriber(script.no_speech_prob).transcribe(SPEECH)
    assert transcript.text == whisper_transcribes(script)
    assert len(transcript.segments) == 1


@pytest.mark.parametrize(
    ("logprob", "no_speech_prob", "text"),
    [
        (-0.69, 0.92, ""),  # tiny.en of hum, without timestamps; openai-whisper's text with timestamps is at -1.18
        (-0.49, 0.92, "you"),
        (-0.69, 0.59, "you"),
        (-1.5, 0.59, "you"),  # openai-whisper keeps it too
        (-2.1, 0.1, ""),  # sea noise: -5
    ],
)
def test_text_that_nobody_said_is_dropped(
    logprob: float, no_speech_prob: float, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert scripted_text("you", logprob, no_speech_prob, monkeypatch) == text


@pytest.mark.parametrize(("said", "text"), [(". . . .", ""), ("...", ""), ("A.", "A."), ("7", "7"), ("日。", "日。")])
def test_signs_alone_are_no_text(said: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert scripted_text(said, -0.3, 0.1, monkeypatch) == text


def scripted_text(text: str, logprob: float, no_speech_prob: float, monkeypatch: pytest.MonkeyPatch) -> str:
    """What is left of a text that is decoded at every temperature."""

    def decode(_opening: object, _vocabulary: object, options: DecodingOptions) -> Decoded:
        return Decoded(
            text=text,
            tokens=(0,),
            ending="complete",
            temperature=options.temperature,
            avg_logprob=logprob,
            compression_ratio=1.0,
        )

    monkeypatch.setattr(transcribe, "decode", decode)
    return fake_transcriber(no_speech_prob).transcribe(SPEECH).text


@dataclass(frozen=True, kw_only=True)
class EndsEarly(FakeText):
    """Says " a", and listened to the first position meanwhile."""

    def step(self, tokens: Ids) -> "tuple[Floats, EndsEarly]":
        logits, text = super().step(tokens)
        return logits, EndsEarly(rule=self.rule, seen=text.seen)

    def rows(self, rows: Sequence[int]) -> "EndsEarly":
        return EndsEarly(rule=self.rule, seen=super().rows(rows).seen)

    def attention(self, tokens: Sequence[int]) -> Floats:
        return np.eye(1, 500, 50, dtype=np.float32).repeat(len(tokens), axis=0)


def test_what_follows_a_pause_is_decoded_again() -> None:
    """The model says "a" and ends at 1 s; what follows the pauses is said in segments of their own, without a gap."""
    model = FakeModel(lambda seen: [9.0 if END not in seen and len(seen) < 3 else 0.0, *[0.0] * 6, 5.0, 0.0, 0.0])
    model.encode = lambda mel: (model.frames.append(mel.shape[1]), EndsEarly(rule=model.rule))[1]  # type: ignore[method-assign]
    pause = np.zeros(2 * SAMPLE_RATE, np.float32)
    burst = SPEECH[:SAMPLE_RATE]
    transcript = Transcriber(model, fake_artifact()).transcribe(np.concatenate([burst, pause, burst, pause, burst]))
    times = [(round(s.start_s, 1), round(s.end_s, 1), s.text) for s in transcript.segments]
    assert times == [(0.0, 2.5, "a"), (2.5, 5.5, "a"), (5.5, 7.0, "a")]


def test_what_a_text_passes_over_is_decoded_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of three bursts with pauses the text is "a b", of the first and the last: the segment ends before the second
    with "a". From there on the text covers both.
    """
    said = Decoded(
        text="a b", tokens=(0, 1), ending="complete", temperature=0.0, avg_logprob=-0.2, compression_ratio=1.0
    )

    def listening(*_: object, audio_s: float, **__: object) -> Listening:
        places_s = (0.5, 6.5) if audio_s > 6 else (1.0, 4.0)
        attention = np.eye(350, dtype=np.float32)[[round(place_s / 0.02) for place_s in places_s]]
        return Listening.to(audio_s, spellings=(b" a", b" b"), attention=attention)

    monkeypatch.setattr(transcribe, "listening", listening)
    monkeypatch.setattr(transcribe, "decode", lambda *_: said)
    pause, burst = np.zeros(2 * SAMPLE_RATE, np.float32), SPEECH[:SAMPLE_RATE]
    transcript = fake_transcriber().transcribe(np.concatenate([burst, pause, burst, pause, burst]))
    times = [(round(s.start_s, 1), round(s.end_s, 1), s.text) for s in transcript.segments]
    assert times == [(0.0, 2.5, "a"), (2.5, 7.0, "a b")]
    assert transcript.text == "a a b"


def test_improbable_text_does_not_decide_the_language(
    multilingual_artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of three pieces the first is improbable: the second decides, the third keeps what it decided."""
    asked, logprobs = [], iter([*[-1.5] * 6, -0.3, -0.3])
    opened = transcribe.open_window

    def open_window(*args: object, language: str | None, **others: object) -> object:
        asked.append(language)
        return replace(opened(*args, language=language, **others), language=language or ("de", "sv")[len(asked) - 1])

    def decode(_opening: object, _vocabulary: object, options: DecodingOptions) -> Decoded:
        return Decoded(
            text="a", tokens=(0,), ending="complete", temperature=options.temperature,
            avg_logprob=next(logprobs), compression_ratio=1.0,
        )  # fmt: skip

    monkeypatch.setattr(transcribe, "open_window", open_window)
    monkeypatch.setattr(transcribe, "decode", decode)
    monkeypatch.setattr(transcribe, "listening", lambda *_, **__: None)
    transcript = Transcriber.open(multilingual_artifact, threads=1).transcribe(np.tile(SPEECH, 20))
    assert asked == [None, None, "sv"]
    assert transcript.language == "sv"


def test_a_loop_falls_back_and_ends_early() -> None:
    def rule(seen: tuple[int, ...]) -> list[float]:
        """The same word for ever; at higher temperatures others, and the end."""
        return [3.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 2.5, 0.0, 0.0]

    transcriber = Transcriber(FakeModel(rule), fake_artifact())
    transcript = transcriber.transcribe(SPEECH)
    (segment,) = transcript.segments
    assert segment.temperature is not None
    assert segment.temperature > 0
    assert segment.compression_ratio is not None
    assert segment.compression_ratio <= 2.4
    assert transcriber.transcribe(SPEECH) == transcript


def test_an_endless_loop_is_heard_once() -> None:
    transcriber = Transcriber(FakeModel(lambda _: [50.0, *[0.0] * 9]), fake_artifact())
    (segment,) = transcriber.transcribe(SPEECH).segments
    assert (segment.text, segment.temperature) == ("a", 1.0)


def test_the_window_is_the_artifacts_shortest_or_the_clip_and_4_s() -> None:
    model = FakeModel(lambda _: [0.0] * 7 + [9.0, 0.0, 0.0])
    Transcriber(model, fake_artifact()).transcribe(np.tile(SPEECH, 5)[: 40 * SAMPLE_RATE])
    Transcriber(model, fake_artifact()).transcribe(SPEECH[: SAMPLE_RATE // 2])
    assert model.frames == [1900, 500]


def test_silence_is_not_decoded() -> None:
    model = FakeModel(lambda _: [9.0] * 10)
    for samples in (np.zeros(0, np.float32), np.zeros(40 * SAMPLE_RATE, np.float32), np.full(900, 9e-5, np.float32)):
        transcript = Transcriber(model, fake_artifact()).transcribe(samples)
        assert transcript.text == ""
        assert {(segment.text, segment.no_speech_prob) for segment in transcript.segments} == {("", None)}
    assert model.frames == []


@pytest.mark.parametrize("level", [0.0, 1e-2, 0.1])
def test_tiny_en_hears_nothing_in_silence_and_noise(tiny: Transcriber, level: float) -> None:
    noise = np.random.default_rng(0).normal(0, level, 10 * SAMPLE_RATE).astype(np.float32)
    assert tiny.transcribe(noise).text == ""


def with_pauses(clips: list[Floats]) -> Floats:
    pause = np.zeros(SAMPLE_RATE // 2, np.float32)
    return np.concatenate([part for clip in clips for part in (clip, pause)])


def test_long_audio_is_the_sum_of_its_pieces(tiny: Transcriber, clips: list[Floats], sample: SpeechSet) -> None:
    tiny = Transcriber(tiny.model, replace(tiny.artifact, window_s=10.0))
    samples = with_pauses([*clips, *clips[:3]])
    transcript = tiny.transcribe(samples)
    pieces = list(cut(samples))
    assert len(pieces) > 1
    assert [(s.start_s, s.end_s) for s in transcript.segments] == [
        (piece.start / SAMPLE_RATE, piece.stop / SAMPLE_RATE) for piece in pieces
    ]
    assert transcript.segments[1].text == tiny.transcribe(samples[pieces[1]]).text
    assert transcript.text == " ".join(segment.text for segment in transcript.segments)
    normalise = EnglishTextNormalizer()
    texts = [tiny.transcribe(clip).text for clip in clips]
    alone = normalise(" ".join([*texts, *texts[:3]]))
    reference = normalise(" ".join(sample.utterances[index].text for index in (0, 1, 2, 3, 4, 0, 1, 2)))
    # what is cut within a word, or heard twice, would show
    assert jiwer.wer(reference, normalise(transcript.text)) <= jiwer.wer(reference, alone) + 0.03


def believe_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random weights: what they say is always improbable."""
    monkeypatch.setattr(transcribe, "TEMPERATURES", (0.0,))
    monkeypatch.setattr(transcribe, "MIN_AVG_LOGPROB", -np.inf)
    monkeypatch.setattr(transcribe, "MAX_COMPRESSION_RATIO", np.inf)
    monkeypatch.setattr(transcribe, "INVENTED_AVG_LOGPROB", -np.inf)


def test_the_language_is_that_of_the_first_piece_with_speech(
    multilingual: Whisper, multilingual_artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    believe_everything(monkeypatch)
    transcriber = Transcriber.open(multilingual_artifact, threads=1)
    samples = np.concatenate([np.zeros(26 * SAMPLE_RATE, np.float32), SPEECH])
    transcript = transcriber.transcribe(samples)
    first = next(cut(samples)).stop
    _, probabilities = multilingual.detect_language(tensor(log_mel(samples[first:], 80)))
    assert transcript.language == max(probabilities, key=probabilities.__getitem__)
    assert transcriber.transcribe(samples[:SAMPLE_RATE]).language is None
    assert transcriber.transcribe(samples, language="sv").language == "sv"


def test_later_pieces_keep_the_language(multilingual_artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    opened = transcribe.open_window

    def open_window(*args: object, language: str | None, **others: object) -> object:
        asked.append(language)
        return replace(opened(*args, language=language, **others), no_speech_prob=0.0)

    monkeypatch.setattr(transcribe, "open_window", open_window)
    believe_everything(monkeypatch)
    monkeypatch.setattr(transcribe, "unheard", lambda *_: None)
    transcript = Transcriber.open(multilingual_artifact, threads=1).transcribe(np.tile(SPEECH, 20))
    assert transcript.language
    assert asked == [None, transcript.language, transcript.language]


def test_an_unknown_language_is_refused_before_anything_is_heard() -> None:
    with pytest.raises(OptionError, match="does not know the language 'de'"):
        fake_transcriber().transcribe(SPEECH, language="de")
