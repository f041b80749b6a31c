"""Our artifacts beside other Whisper runtimes: the same weights and clips, one machine, one run.

    python benchmarks/peers/peers.py --data MANIFEST [--model tiny.en] [--run results/first] [--recipe FILE]...
        [--limit N] [--only NAME]... [--timed-limit N] [--out FILE.jsonl] [--json]

Every system transcribes every clip in a fresh process at 2 threads, then in another at 1 thread (with --timed-limit
only the first N clips), one process at a time. A process loads the model, transcribes the first clip once to warm up,
then every clip once. All systems get the same samples, the language and the same limit of tokens, and decode greedily,
without timestamps, temperature fallback, thresholds and earlier text. Rows go to --out as they are measured; what is
there already, of the same speech, code and versions, is not measured again. The table goes to stderr; with --json,
all figures go to stdout.

Columns: WER with its 95 % interval, by the evaluator's normaliser; bytes of all files that the runtime reads,
vocabulary included; medians over the clips of the time from samples in memory to text (log-mel included), of the
encoder, and of all after the encoder by the number of tokens; peak memory (VmHWM) of the process, with its imports;
time to load the model, after the imports; the encoder's shortest window; the share of texts that are torch float32's.

    torch float32       openai-whisper's `whisper.decode` on a file as OpenAI ships it (float16 weights)
    onnx ...            ours, by the package `runtime`. a8: 8-bit activations; mixed pick: what --run recommends
    ..., in sherpa-onnx the same recipe, exported for sherpa-onnx and run by its package, which does not tell the times
                        of encoder and token
    sherpa-onnx int8    sherpa-onnx's own quantisation (dynamic, MatMul only) of our float32 graphs in its form
    transcribe.cpp ...  its own conversion and quantisation, by its package, which ends a text at 256 tokens
                        and says nothing where it is sure of no speech; "..., in transcribe.cpp" are ours there
    faster-whisper ...  CTranslate2 with compute type float32 (weights stored as float16) or int8 (stored as int8, of
                        CTranslate2's own rounding); beam 1, no voice detection
    whisper.cpp ...     pywhispercpp's wheel; whisper.cpp's own rounding, flash attention
    onnxruntime quantize_dynamic    ONNX Runtime's preprocessing and dynamic quantisation, both with their defaults
                        (int8 per tensor: MatMul, Conv, Gather), of our float32 graphs, by `runtime`
    torch qint8         torch's dynamic quantisation of every linear layer; embedding and logits stay float32

"..., 15 s" are peers that are given our rule for the window (the clip and 4 s, at least 15 s), which they do not have.
Encoders of onnx and whisper.cpp include cross-attention's keys and values, which the others compute in the decoder.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from peer_files import pick_of
from peer_results import SCORED_THREADS, THREADS, Measured, beaten_by, comparisons, rows, table_lines, verdict_lines
from peer_systems import (
    HERE,
    System,
    chosen,
    code_digest,
    in_onnx_runtime,
    in_other_runtime,
    prepared,
    systems,
)
from recognisers.timed import Clip, Job, Result

from common.errors import EvaluationError, InputError, WhisperfitError
from common.files import write_text_whole
from compression.export.manifest import Sources
from compression.recipe.runtimes import unsupported_reason
from compression.whisper.load import LoadedModel, load_model
from evaluators.accuracy.evaluator import Evaluator, max_tokens
from evaluators.accuracy.word_errors import ErrorCounts, count_errors
from evaluators.speech.audio import SAMPLE_RATE, read_audio
from evaluators.speech.features import CachedFeatures
from evaluators.speech.language import language_of
from evaluators.speech.speech_set import MAX_DURATION_S, SpeechSet, Utterance
from runtime.window import encoder_window_s
from search.commands.baseline import read_recipe
from search.loading import load_speech

PACKAGES = (
    "torch",
    "openai-whisper",
    "onnxruntime",
    "numpy",
    "faster-whisper",
    "ctranslate2",
    "pywhispercpp",
    "sherpa-onnx",
    "transcribe-cpp",
)
"""Whose versions are recorded."""


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What rows must share to stand in one table."""

    model: str
    model_sha256: str
    speech: str
    speech_sha256: str
    utterances: int
    timed_at_one_thread: int
    normaliser: str
    code: str
    versions: dict[str, str]
    processor: str


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="tiny.en")
    parser.add_argument("--run", type=Path, help="also the recipe that this run recommends")
    parser.add_argument(
        "--recipe", type=Path, action="append", default=[], help="also this recipe (JSON), without pruning"
    )
    parser.add_argument("--language", help="of manifest lines that state none")
    parser.add_argument("--limit", type=int, help="only the first N utterances")
    parser.add_argument("--timed-limit", type=int, help="at 1 thread, only the first N of them")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="only this system; may be repeated")
    parser.add_argument("--out", type=Path, help="where rows are kept: what is in it is not measured again")
    parser.add_argument("--json", action="store_true")
    try:
        run(parser.parse_args())
    except WhisperfitError as error:
        print(f"peers: {error}", file=sys.stderr)
        return 2
    return 0


def run(options: argparse.Namespace) -> None:
    model = load_model(options.model)
    pick = pick_of(options.run, model) if options.run else None
    further = [system for file in options.recipe for system in recipe_systems(file, model)]
    compared = chosen([*systems(model, pick), *further], options.only)
    speech = load_speech(options.data, model, language=options.language, skip_broken=False)
    speech = replace(speech, utterances=speech.utterances[: options.limit])
    setup = setup_of(model, speech, options.timed_limit)
    store = Store(options.out, setup)
    with TemporaryDirectory() as scratch:
        samples = write_samples(speech.utterances, Path(scratch))
        bench = Bench(model=model, utterances=speech.utterances, timed=setup.timed_at_one_thread, samples=samples)
        measured = measure_all(compared, bench, store)
    table = rows(measured, setup.normaliser)
    against = comparisons(measured, table)
    print("\n".join([*table_lines(table), "", *verdict_lines(against)]), file=sys.stderr)
    if options.json:
        values = {
            "setup": asdict(setup),
            "rows": [asdict(row) | {"accuracy": row.accuracy.columns} for row in table],
            "comparison": list(map(asdict, against)),
            "beaten_by": {peer: [winner.ours for winner in winners] for peer, winners in beaten_by(against).items()},
        }
        print(json.dumps(values, indent=1))


def recipe_systems(file: Path, model: LoadedModel) -> list[System]:
    """Our artifacts of a recipe in a file, called by the file's name: in every runtime here that runs it."""
    recipe, sources = read_recipe(file).canonical(model.dimensions), Sources(model=model.name)
    name = f"onnx {file.stem}"
    found = {
        "onnxruntime": in_onnx_runtime(name, "ours", recipe, sources),
        "sherpa-onnx": in_other_runtime("sherpa-onnx", name, recipe, sources),
        "transcribe-cpp": in_other_runtime("transcribe-cpp", file.stem, recipe, sources),
    }
    return [system for target, system in found.items() if not unsupported_reason(target, recipe, model.dimensions)]


def setup_of(model: LoadedModel, speech: SpeechSet, timed_limit: int | None) -> Setup:
    # the evaluator checks that the model knows the languages
    evaluator = Evaluator(speech, dimensions=model.dimensions, features=CachedFeatures(n_mels=model.dimensions.n_mels))
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    count = len(speech.utterances)
    return Setup(
        model=model.name,
        model_sha256=model.digest,
        speech=speech.name,
        speech_sha256=speech.digest,
        utterances=count,
        timed_at_one_thread=min(timed_limit or count, count),
        normaliser=evaluator.normaliser,
        code=code_digest(),
        versions={name: version(name) for name in PACKAGES},
        processor=next((line.partition(": ")[2] for line in lines if line.startswith("model name")), ""),
    )


class Store:
    """Rows in a file, one per line, each with its setup; without a file nothing is kept."""

    def __init__(self, file: Path | None, setup: Setup) -> None:
        self._file = file
        self._setup = asdict(setup)
        self._lines = file.read_text(encoding="utf-8").splitlines() if file and file.exists() else []
        self._known: dict[tuple[str, int, str | None], Measured] = {}
        for number, line in enumerate(self._lines, start=1):
            try:
                values = json.loads(line)
                if values["setup"] == self._setup:
                    self._remember(Measured.from_json(values["measured"]))
            except (ValueError, KeyError, TypeError) as error:
                raise InputError(f"--out {file}: line {number} is no row of peers.py; give another file") from error
        other = len(self._lines) - len(self._known)
        if other:
            print(f"--out {file}: {other} rows of another setup are left alone", file=sys.stderr)

    def _remember(self, measured: Measured) -> None:
        self._known[measured.system, measured.threads, measured.recipe_id] = measured

    def find(self, system: System, threads: int) -> Measured | None:
        """The row of an earlier run with the same setup."""
        return self._known.get((system.name, threads, system.recipe_id))

    def add(self, measured: Measured) -> None:
        self._remember(measured)
        self._lines.append(json.dumps({"setup": self._setup, "measured": asdict(measured)}))
        if self._file:
            write_text_whole(self._file, "\n".join(self._lines) + "\n")


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What is transcribed: `samples` are the files of the `utterances`, of which `timed` are those at 1 thread."""

    model: LoadedModel
    utterances: Sequence[Utterance]
    timed: int
    samples: dict[str, Path]

    def measure(self, system: System, threads: int) -> Measured:
        """Make the system's files unless they are there, then run its process. Raises EvaluationError when it fails."""
        files = prepared(system, self.model)
        utterances = self.utterances if threads == SCORED_THREADS else self.utterances[: self.timed]
        clips = tuple(self._clip(utterance, system) for utterance in utterances)
        job = Job(files=str(files), compute=system.compute, threads=threads, clips=clips)
        load_average = os.getloadavg()[0]
        result = run_recogniser(system.recogniser, job)
        return Measured(
            system=system.name,
            side=system.side,
            recipe_id=system.recipe_id,
            window_s=system.window_s,
            threads=threads,
            size_bytes=sum(file.stat().st_size for file in files.iterdir()),
            load_average=load_average,
            result=result,
            errors=tuple(
                errors_of(utterance, clip.text) for utterance, clip in zip(utterances, result.clips, strict=True)
            ),
        )

    def _clip(self, utterance: Utterance, system: System) -> Clip:
        """At most 12 tokens a second and 16, as the evaluator allows, whatever the reference is."""
        tokens = min(max_tokens(utterance, reference_tokens=0), self.model.dimensions.n_text_ctx // 2)
        return Clip(
            id=utterance.id,
            samples=str(self.samples[utterance.id]),
            language=language_of(utterance),
            max_tokens=tokens,
            window_s=encoder_window_s(system.window_s, utterance.duration_s),
        )


def measure_all(compared: Sequence[System], bench: Bench, store: Store) -> list[Measured]:
    """Every system at every number of threads, one process at a time; what is in the store is taken from there."""
    found = []
    for system in compared:
        for threads in THREADS:
            known = store.find(system, threads)
            if known is None:
                print(f"{system.name}: threads = {threads}", file=sys.stderr)
                known = bench.measure(system, threads)
                store.add(known)
            found.append(known)
    return found


def run_recogniser(name: str, job: Job) -> Result:
    """Do the job in a fresh process, which uses no more threads in its numerical libraries either."""
    limits = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(job.threads))
    with TemporaryDirectory() as scratch:
        job_file, result_file = Path(scratch) / "job.json", Path(scratch) / "result.json"
        job_file.write_text(json.dumps(asdict(job)), encoding="utf-8")
        command = [sys.executable, "-m", f"recognisers.{name}", str(job_file), str(result_file)]
        done = subprocess.run(command, cwd=HERE, env=os.environ | limits, capture_output=True, text=True, check=False)
        if done.returncode:
            reason = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
            raise EvaluationError(f"{name} on {job.files} failed: {reason[0]}")
        return Result.from_json(json.loads(result_file.read_text(encoding="utf-8")))


def write_samples(utterances: Sequence[Utterance], folder: Path) -> dict[str, Path]:
    """The clips as every system gets them: the first 30 s as float32 at 16 kHz."""
    found = {}
    for index, utterance in enumerate(utterances):
        found[utterance.id] = folder / f"{index}.npy"
        np.save(found[utterance.id], read_audio(utterance.audio)[: round(MAX_DURATION_S * SAMPLE_RATE)])
    return found


def errors_of(utterance: Utterance, text: str) -> ErrorCounts:
    return count_errors(
        utterance_id=utterance.id,
        speaker=utterance.speaker,
        reference=utterance.text,
        hypothesis=text,
        language=language_of(utterance),
    )


if __name__ == "__main__":
    sys.exit(main())
