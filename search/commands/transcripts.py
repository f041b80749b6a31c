"""What a model said, beside what was said: a file with a line for each utterance."""

import csv
import io
import json
from pathlib import Path

from common.errors import InputError
from common.files import write_text_whole
from evaluators.accuracy.evaluator import Evaluation
from evaluators.accuracy.normaliser_names import NormaliserChoice
from evaluators.accuracy.normalisers import normaliser_for
from evaluators.speech.language import language_of
from evaluators.speech.speech_set import SpeechSet

ENDINGS = (".jsonl", ".tsv")
COLUMNS = (
    *("id", "language", "reference", "transcript", "normalised_reference", "normalised_transcript"),
    *("insertions", "deletions", "substitutions", "words"),
)


def check_transcripts_file(file: Path) -> None:
    """Raise InputError unless transcripts can be written there."""
    if file.suffix.lower() not in ENDINGS:
        raise InputError(f"--transcripts {file}: give a file that ends in {' or '.join(ENDINGS)}")
    if file.is_dir() or not file.absolute().parent.is_dir():
        reason = "it is a folder" if file.is_dir() else f"there is no folder {file.absolute().parent}"
        raise InputError(f"--transcripts {file}: cannot be written: {reason}")


def write_transcripts(file: Path, speech: SpeechSet, evaluation: Evaluation, normaliser: NormaliserChoice) -> None:
    """Write COLUMNS of every utterance that was scored, whole; a file that is there is replaced. Raises OSError."""
    rows = _rows(speech, evaluation, normaliser)
    if file.suffix.lower() == ".jsonl":
        write_text_whole(file, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
        return
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, dialect="excel-tab", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text_whole(file, text.getvalue())


def _rows(speech: SpeechSet, evaluation: Evaluation, normaliser: NormaliserChoice) -> list[dict[str, str | int]]:
    spoken = {utterance.id: utterance for utterance in speech.utterances}
    rows: list[dict[str, str | int]] = []
    for scored in evaluation.utterances:
        counts, utterance = scored.counts, spoken[scored.counts.utterance_id]
        texts = {"reference": utterance.text, "transcript": scored.hypothesis.text}
        normalise = normaliser_for(language_of(utterance), normaliser).normalise
        rows.append(
            {
                "id": utterance.id,
                "language": language_of(utterance),
                **texts,
                **{f"normalised_{name}": " ".join(normalise(text).split()) for name, text in texts.items()},
                "insertions": counts.insertions,
                "deletions": counts.deletions,
                "substitutions": counts.substitutions,
                "words": counts.words,
            }
        )
    return rows
