"""Words lost and words invented in audio with pauses and in long audio, by three recognisers on the same samples.

    python benchmarks/wer/long_audio.py --data MANIFEST --artifact DIR... [--groups N] [--sentences N] [--longest S]
                                        [--pauses S...] [--below-db DB] [--out FILE]

The audio is made of the manifest's clips, in its order: groups of so many sentences with a pause of faint noise between
them, by default two and 1, 3 and 6 s, and one long recording of all those clips with 0.5 s between them. All
recognisers have their own defaults, and hear English:

- each artifact, named by its folder, as `whisperfit transcribe` runs it
- openai-whisper: `whisper.transcribe` of --model, without conditioning on previous text
- faster-whisper: `WhisperModel.transcribe` of the package's tiny.en with beam 1, without conditioning on previous text

Deletions and insertions are counted by cause, which is told by length: a *stretch* is a run of at least five words that
is missing (a sentence was lost) or was added (it was invented or said twice); all others are *single*.
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import jiwer
import numpy as np
import torch
import whisper
from baseline_wer import packaged
from faster_whisper import WhisperModel

from compression.whisper.load import load_model
from evaluators.accuracy.word_errors import normaliser_for
from evaluators.speech.speech_set import Utterance, load_speech_set
from runtime.audio import SAMPLE_RATE, Floats
from runtime.transcribe import Transcriber

PAUSES_S = (1.0, 3.0, 6.0)
GAP_S = 0.5
STRETCH_WORDS = 5

Recognise = Callable[[Floats], str]


@dataclass(frozen=True, kw_only=True)
class Recording:
    """16 kHz audio and what is said in it."""

    samples: Floats
    text: str


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Words: of the references, substituted, and deleted and inserted one by one or in stretches."""

    words: int = 0
    substituted: int = 0
    deleted_single: int = 0
    deleted_stretch: int = 0
    inserted_single: int = 0
    inserted_stretch: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(**{name: value + getattr(other, name) for name, value in asdict(self).items()})

    @property
    def wer(self) -> float:
        return (sum(asdict(self).values()) - self.words) / self.words


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--artifact", type=Path, required=True, nargs="+")
    parser.add_argument("--model", default="tiny.en")
    parser.add_argument("--groups", type=int, default=10, help="how many groups of clips")
    parser.add_argument("--sentences", type=int, default=2, help="how many clips are a group")
    parser.add_argument("--pauses", type=float, nargs="*", default=PAUSES_S, help="seconds; none: only the recording")
    parser.add_argument("--below-db", type=float, default=60.0, help="the pauses' noise; inf: digital silence")
    parser.add_argument("--longest", type=float, default=11.0, help="seconds of a clip at most")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", nargs="+", help="of the recognisers; the others' results in --out are kept")
    parser.add_argument("--out", type=Path, help="write the results as JSON")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    clips = [clip for clip in load_speech_set(options.data).utterances if clip.duration_s <= options.longest]
    clips = clips[: options.sentences * options.groups]
    groups = [list(group) for group in zip(*[iter(clips)] * options.sentences, strict=False)]
    audio = {
        f"pause of {pause_s:g} s": [together(group, pause_s, options.below_db) for group in groups]
        for pause_s in options.pauses
    }
    audio["long recording"] = [together(clips, GAP_S, options.below_db)]
    rows = json.loads(options.out.read_text(encoding="utf-8"))["results"] if options.only and options.out else {}
    for name, recognise in recognisers(options).items():
        if not options.only or name in options.only:
            rows[name] = {}
            for kind, recordings in audio.items():
                counts = counted(recognise, recordings)
                rows[name][kind] = asdict(counts)
                print(
                    f"{name:15} {kind:15} {len(recordings)}: WER {100 * counts.wer:6.2f} %  {asdict(counts)}",
                    flush=True,
                )
    if options.out:
        shown = {key: _shown(value) for key, value in vars(options).items() if key not in ("out", "only")}
        options.out.write_text(json.dumps({"options": shown, "results": rows}, indent=1) + "\n", encoding="utf-8")


def _shown(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def together(clips: list[Utterance], pause_s: float, below_db: float) -> Recording:
    """The clips with faint white noise between them, always the same."""
    rng = np.random.default_rng(0)
    parts: list[Floats] = []
    for clip in clips:
        pause = rng.normal(0, 10 ** (-below_db / 20), round(pause_s * SAMPLE_RATE)).astype(np.float32)
        parts += [pause, clip.samples()] if parts else [clip.samples()]
    return Recording(samples=np.concatenate(parts), text=" ".join(clip.text for clip in clips))


def recognisers(options: argparse.Namespace) -> dict[str, Recognise]:
    ours = {folder.name: Transcriber.open(folder, threads=options.threads) for folder in options.artifact}
    network = load_model(options.model).network
    converted = WhisperModel(
        str(packaged(options.model)), device="cpu", compute_type="float32", cpu_threads=options.threads
    )

    def openai(samples: Floats) -> str:
        torch.manual_seed(0)
        said = whisper.transcribe(network, samples, language="en", fp16=False, condition_on_previous_text=False)
        return str(said["text"])

    def faster(samples: Floats) -> str:
        segments, _ = converted.transcribe(samples, language="en", beam_size=1, condition_on_previous_text=False)
        return " ".join(segment.text for segment in segments)

    return {
        **{name: partial(_text, transcriber) for name, transcriber in ours.items()},
        "openai-whisper": openai,
        "faster-whisper": faster,
    }


def _text(transcriber: Transcriber, samples: Floats) -> str:
    return transcriber.transcribe(samples, language="en").text


def counted(recognise: Recognise, recordings: list[Recording]) -> Counts:
    return sum((errors(recording.text, recognise(recording.samples)) for recording in recordings), Counts())


def errors(reference: str, text: str) -> Counts:
    normalise = normaliser_for("en").normalise
    aligned = jiwer.process_words(normalise(reference), normalise(text))
    counts = Counts(words=len(aligned.references[0]), substituted=aligned.substitutions)
    for chunk in aligned.alignments[0]:
        deleted, inserted = (chunk.ref_end_idx - chunk.ref_start_idx, chunk.hyp_end_idx - chunk.hyp_start_idx)
        if chunk.type == "delete":
            counts += Counts(**{kind("deleted", deleted): deleted})
        elif chunk.type == "insert":
            counts += Counts(**{kind("inserted", inserted): inserted})
    return counts


def kind(error: str, words: int) -> str:
    return f"{error}_{'stretch' if words >= STRETCH_WORDS else 'single'}"


if __name__ == "__main__":
    main()
