"""What each stage of a search needs of memory and time for a model of any size, with random weights.

    python benchmarks/models/sizes.py --model small --folder /tmp/sizes [--threads 2] > small.md

Random weights take as much room and time as trained ones, and say nothing of accuracy. Each stage runs in a process of
its own on what the stages before it left in `--folder`, which has the checkpoint and the cache (--keep leaves it).
Peak is the most that was resident, pages of mapped files included, which the system can take back; held is the most
that it cannot, as far as it was seen every 50 ms. Speech is the project's sample.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from threading import Event, Thread
from time import monotonic, process_time

import torch

from common.errors import EvaluationError
from compression.calibration.calibration import Calibration
from compression.compress import compress
from compression.export.manifest import Sources, artifact_bytes
from compression.export.targets import export
from compression.recipe.dimensions import published_dimensions
from compression.recipe.recipe import Recipe
from compression.whisper.load import LoadedModel, load_model
from evaluators.accuracy.divergence_meter import DivergenceMeter
from evaluators.accuracy.evaluator import Evaluator
from evaluators.accuracy.known_transcripts import KnownTranscripts
from evaluators.learning.calibration import calibrate, sensitivity_profile
from evaluators.profiling.workload_artifacts import random_model
from evaluators.runtimes.verification import verify
from evaluators.speech.divergence_clips import draw_clips
from evaluators.speech.features import CachedFeatures
from evaluators.speech.speech_set import SpeechSet, load_speech_set
from runtime.measure import Plan
from runtime.memory import STATUS, of_status, peak_rss_bytes

ROOT = Path(__file__).parents[2]
CLIPS = 8
UTTERANCES = 2
"""Of speech that is scored."""
SAMPLED_S = 0.05


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="tiny, base, small, medium, large-v3, large-v3-turbo ...")
    parser.add_argument("--folder", required=True, type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--utterances", type=int, default=4, help="to calibrate on")
    parser.add_argument("--stages", nargs="*", default=list(STAGES), choices=tuple(STAGES))
    parser.add_argument("--keep", action="store_true", help="leave checkpoint and cache")
    parser.add_argument("--one", choices=tuple(STAGES), help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.one:
        print(json.dumps(measured(STAGES[options.one], Materials(options))))
        return
    options.folder.mkdir(parents=True, exist_ok=True)
    write_checkpoint(options.model, checkpoint(options))
    parameters = sum(p.numel() for p in load_model(str(checkpoint(options))).network.parameters())
    print(f"## {options.model}: {parameters / 1e6:.0f} million parameters, {options.threads} threads\n")
    print("| stage | CPU s | s | peak MB | held MB | what |\n|---|---|---|---|---|---|", flush=True)
    for row in rows(options):
        print("| " + " | ".join(row) + " |", flush=True)
    if not options.keep:
        shutil.rmtree(options.folder)


def checkpoint(options: argparse.Namespace) -> Path:
    folder: Path = options.folder
    return folder / f"{options.model}-random.pt"


def write_checkpoint(name: str, file: Path) -> None:
    """In a process of its own: this one is to stay small."""
    if not file.exists():
        program = "import sys; from benchmarks.models.sizes import save_random; save_random(*sys.argv[1:])"
        subprocess.run([sys.executable, "-c", program, name, str(file)], check=True, cwd=ROOT)


def save_random(name: str, file: str) -> None:
    """In openai-whisper's format, float16."""
    model = random_model(name, published_dimensions(name))
    state = {key: value.half() for key, value in model.network.state_dict().items()}
    torch.save({"dims": asdict(model.dimensions), "model_state_dict": state}, file)


def rows(options: argparse.Namespace) -> Iterator[tuple[str, ...]]:
    own = ["--model", options.model, "--folder", str(options.folder), "--threads", str(options.threads)]
    environment = {**os.environ, "WHISPERFIT_CACHE": str(options.folder / "cache")}
    for stage in options.stages:
        command = [sys.executable, __file__, *own, "--utterances", str(options.utterances), "--one", stage]
        ended = subprocess.run(command, check=False, capture_output=True, text=True, cwd=ROOT, env=environment)
        if ended.returncode:
            yield stage, "", "", "", "", f"failed: {(ended.stderr.splitlines() or [str(ended.returncode)])[-1]}"
            continue
        found = json.loads(ended.stdout.splitlines()[-1])
        numbers = (f"{found[name]:.0f}" for name in ("cpu_s", "wall_s", "peak_mb", "held_mb"))
        yield stage, *numbers, found["what"]


class Materials:
    """What stages work on."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.folder: Path = options.folder
        self.threads: int = options.threads
        self.utterances: int = options.utterances
        self.model: LoadedModel = load_model(str(checkpoint(options)))
        speech = load_speech_set(Path("sample-search"), language="en")
        self.calibration_speech = replace(speech, utterances=speech.utterances[: self.utterances])
        self.speech: SpeechSet = replace(speech, utterances=speech.utterances[-UTTERANCES:])
        self.features = CachedFeatures(n_mels=self.model.dimensions.n_mels)

    @property
    def calibration(self) -> Calibration:
        return calibrate(self.model, self.calibration_speech, limit=self.utterances, features=self.features)

    @property
    def recipe(self) -> Recipe:
        return four_bits(self.model)

    @property
    def pruned(self) -> Recipe:
        """A tenth of the channels less, refitted."""
        channels = 9 * self.model.dimensions.n_audio_state * 4 // 10 // 32 * 32
        return self.recipe.with_each_layer(ffn_channels=channels).canonical(self.model.dimensions)

    def meter(self, clips: int) -> DivergenceMeter:
        drawn = draw_clips(self.calibration_speech.utterances * CLIPS, clips, seed=0, widen=False)
        return DivergenceMeter(self.model, drawn, KnownTranscripts(f"sizes/{self.model.digest}/{clips}"))

    @property
    def evaluator(self) -> Evaluator:
        return Evaluator(self.speech, dimensions=self.model.dimensions, features=self.features)


def four_bits(model: LoadedModel) -> Recipe:
    """Four bits in groups of 32, eight of the embedding."""
    recipe = Recipe.original(model.dimensions, stored_bits=16).with_each_layer(attention_bits=4, ffn_bits=4)
    return replace(recipe, embedding_bits=8, group_size=32, window_s=15.0).canonical(model.dimensions)


def load(_: Materials) -> str:
    return "the checkpoint, float16"


def calibration(materials: Materials) -> str:
    _ = materials.calibration
    return f"{materials.utterances} utterances, transcribed, forward and backward; each layer skipped in turn"


def profile(materials: Materials) -> str:
    sensitivity_profile(
        materials.model,
        materials.calibration_speech,
        limit=materials.utterances,
        features=materials.features,
        grid=replace(Recipe.original(materials.model.dimensions, stored_bits=16), group_size=32),
        bits=(4,),
    )
    return "every matrix rounded to 4 bits"


def bank(materials: Materials) -> str:
    compress(materials.model, materials.recipe, materials.calibration)
    size = sum(file.stat().st_size for file in (materials.folder / "cache" / "bank").iterdir())
    return f"the first recipe: every matrix rounded on its grid and kept, {size / 1e6:.0f} MB so far"


def references(materials: Materials) -> str:
    return f"the original transcribes {materials.meter(CLIPS).clips} clips for divergence"


def judged(materials: Materials, recipe: Recipe) -> str:
    network = compress(materials.model, recipe, materials.calibration)
    started = process_time()
    found = materials.meter(CLIPS).measure(network, window_s=recipe.window_s)
    return (
        f"compressed, and divergence on {found.clips} clips ({process_time() - started:.0f} CPU s, the original's too)"
    )


def whole(materials: Materials) -> str:
    return judged(materials, materials.recipe)


def pruned(materials: Materials) -> str:
    return "a tenth of the channels gone: " + judged(materials, materials.pruned)


def transcripts(materials: Materials) -> str:
    network = compress(materials.model, materials.recipe, materials.calibration)
    found = materials.evaluator.evaluate(network, window_s=15.0)
    tokens = sum(len(utterance.hypothesis.tokens) for utterance in found.utterances)
    return f"{len(found.utterances)} utterances decoded, {tokens} tokens"


def artifact(materials: Materials) -> str:
    network = compress(materials.model, materials.recipe, materials.calibration)
    out, sources = materials.folder / "artifact", Sources(model="random")
    export(materials.model, materials.recipe, network, out, target="onnxruntime", sources=sources)
    plan = Plan(threads=materials.threads, repeats=1, reference_s=10.0, reference_tokens=30)
    found = verify(out, materials.evaluator, plan, compressed=network, window_s=15.0)
    return f"exported ({artifact_bytes(out) / 1e6:.0f} MB), verified, {found.measured.reference_ms:.0f} ms for 10 s"


STAGES: dict[str, Callable[[Materials], str]] = {
    "load": load,
    "calibration": calibration,
    "profile": profile,
    "bank": bank,
    "references": references,
    "four bits": whole,
    "pruned": pruned,
    "transcripts": transcripts,
    "artifact": artifact,
}


def measured(stage: Callable[[Materials], str], materials: Materials) -> dict[str, float | str]:
    """Times without loading the model, memory with it."""
    started, cpu, done, held = monotonic(), process_time(), Event(), [0.0]

    def look() -> None:
        while not done.wait(SAMPLED_S):
            held[0] = max(held[0], anonymous_mb())

    watcher = Thread(target=look)
    watcher.start()
    try:
        what = stage(materials)
    except EvaluationError as error:
        what = f"not measured: {error}"
    finally:
        done.set()
        watcher.join()
    return {
        "what": what,
        "cpu_s": process_time() - cpu,
        "wall_s": monotonic() - started,
        "peak_mb": peak_rss_bytes() / 1e6,
        "held_mb": max(held[0], anonymous_mb()),
    }


def anonymous_mb() -> float:
    """Resident memory that lies in no file."""
    return (of_status(STATUS, "RssAnon") or 0) / 1e6


if __name__ == "__main__":
    main()
