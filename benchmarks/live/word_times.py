"""Word times of an artifact beside openai-whisper's own, clip by clip, and whether any overlap in noisy audio.

    python benchmarks/live/word_times.py --artifact DIR --data MANIFEST [--noise FOLDER]
                                         [--clips N] [--model M] [--out FILE]

Words that both hear alike are compared: difference of their starts, by size. openai-whisper: `whisper.transcribe` with
`word_timestamps=True`. With --noise the artifact also hears each clip at 5 and 0 dB: *overlapping* counts words that
begin before the word before them ends, *backward* those that end before they begin; both must be 0, as in captions.
"""

import argparse
import json
from itertools import pairwise
from pathlib import Path

import jiwer
import numpy as np
import torch
import whisper
from joined import mixed, recordings

from compression.whisper.load import load_model
from evaluators.speech.speech_set import load_speech_set
from runtime.audio import Floats
from runtime.captions import captions
from runtime.transcribe import Transcriber
from runtime.words import Word


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--artifact", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--noise", type=Path)
    parser.add_argument("--clips", type=int, default=40)
    parser.add_argument("--model", default="tiny.en")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    transcriber, network = Transcriber.open(options.artifact, threads=1), load_model(options.model).network
    clips = [clip.samples() for clip in load_speech_set(options.data).utterances[: options.clips]]
    noises = list(recordings(options.noise).values()) if options.noise else []
    differences_ms, heard = list[float](), list[list[Word]]()
    for index, samples in enumerate(clips):
        heard.append(words(transcriber, samples))
        differences_ms += starts_apart_ms(heard[-1], original(network, samples))
        if noises:
            heard += [words(transcriber, mixed(samples, noises[index % len(noises)], snr)) for snr in (5.0, 0.0)]
    shown = [captions(said) for said in heard]
    values = {
        "artifact": options.artifact.name,
        "words_compared": len(differences_ms),
        "start_difference_ms": {
            f"{share} %": round(float(np.percentile(differences_ms, share)), 1) for share in (50, 75, 90, 95)
        },
        "recordings": len(heard),
        "words": sum(map(len, heard)),
        "overlapping": sum(b.start_s < a.end_s for said in heard for a, b in pairwise(said)),
        "backward": sum(word.end_s < word.start_s for said in heard for word in said),
        "captions": sum(map(len, shown)),
        "captions_overlapping": sum(b.start_s < a.end_s for found in shown for a, b in pairwise(found)),
        "captions_not_positive": sum(caption.end_s <= caption.start_s for found in shown for caption in found),
    }
    print(json.dumps(values, indent=1))
    if options.out:
        options.out.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")


def words(transcriber: Transcriber, samples: Floats) -> list[Word]:
    said = transcriber.transcribe(samples, language="en", word_times=True)
    return [word for segment in said.segments for word in segment.words or ()]


def original(network: whisper.Whisper, samples: Floats) -> list[Word]:
    said = whisper.transcribe(network, samples, language="en", fp16=False, word_timestamps=True)
    return [
        Word(text=word["word"], start_s=float(word["start"]), end_s=max(float(word["start"]), float(word["end"])))
        for segment in said["segments"]
        for word in segment["words"]
    ]


def starts_apart_ms(ours: list[Word], theirs: list[Word]) -> list[float]:
    """Of the words that both have, in order."""
    texts = [" ".join(letters(word.text) for word in said) or "-" for said in (theirs, ours)]
    found = jiwer.process_words(*texts)
    pairs = (
        (chunk.ref_start_idx + place, chunk.hyp_start_idx + place)
        for chunk in found.alignments[0]
        if chunk.type == "equal"
        for place in range(chunk.ref_end_idx - chunk.ref_start_idx)
    )
    return [1000 * abs(theirs[a].start_s - ours[b].start_s) for a, b in pairs]


def letters(text: str) -> str:
    return "".join(character for character in text.casefold() if character.isalnum()) or "-"


if __name__ == "__main__":
    main()
