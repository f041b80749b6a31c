"""How fast the evaluator scores a network, next to a loop over `whisper.decode` on the same clips in the same run.

    python benchmarks/speed/evaluator_throughput.py --data MANIFEST [--model tiny.en] [--limit N] [--repeats 3] [--json]

Two networks: the original, which has no drafts, as when a search measures its baseline; and a candidate (all linear
layers at `--bits` bits per channel) with the original's transcripts as drafts, as in every later trial.
`whisper.decode` runs greedily, without timestamps, on the output of `network.encoder`: what it does by itself, with
the time of both parts visible. Medians over the repeats, features from the cache. Texts are compared with those of
`whisper.decode` at the 30 s window, on the same network; at a shorter window the encoder hears less silence.
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from time import perf_counter

import torch
import whisper
from whisper.model import Whisper

from compression.compress import compress
from compression.recipe.dimensions import Dimensions
from compression.recipe.recipe import Recipe
from compression.techniques.compressed import Compressed
from compression.whisper.load import LoadedModel, load_model
from evaluators.accuracy.evaluator import Evaluation, Evaluator
from evaluators.costs.inventory import operations
from evaluators.speech.features import CachedFeatures
from evaluators.speech.language import language_of
from evaluators.speech.speech_set import SpeechSet
from search.loading import load_speech, use_threads

SHORT_WINDOW_S, FULL_WINDOW_S = 15.0, 30.0
SGEMM_SIZE = 2048


@dataclass(frozen=True, kw_only=True)
class Run:
    """One way to transcribe all clips once. `identical_texts`: those of whisper.decode on the same network."""

    name: str
    utterances: int
    encoder_s: float
    after_encoder_s: float
    identical_texts: int

    @property
    def whole_s(self) -> float:
        return self.encoder_s + self.after_encoder_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="tiny.en")
    parser.add_argument("--bits", type=int, default=6, help="weights of the candidate")
    parser.add_argument("--language", help="of manifest lines that state none")
    parser.add_argument("--limit", type=int, help="only the first N utterances")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    use_threads(options.threads)
    model = load_model(options.model)
    speech = load_speech(options.data, model, language=options.language, skip_broken=False)
    speech = replace(speech, utterances=speech.utterances[: options.limit])
    repeats = [measured(model, speech, options.bits) for _ in range(options.repeats)]
    runs = [median_run(same) for same in zip(*(runs for runs, _ in repeats), strict=True)]
    peak = median(gflops for _, gflops in repeats)
    report(runs, peak, encoder_gflop(model.dimensions), as_json=options.json)


def measured(model: LoadedModel, speech: SpeechSet, bits: int) -> tuple[list[Run], float]:
    """Every way once, and the peak of sgemm in GFLOP/s at that moment."""
    features = CachedFeatures(n_mels=model.dimensions.n_mels)
    evaluator = Evaluator(speech, dimensions=model.dimensions, features=features)
    candidate = compress(model, quantised(model, bits))
    loop, original_texts = whisper_loop("whisper.decode, original", model.network, speech, features)
    baseline = evaluator.evaluate(Compressed.original(model.network), window_s=FULL_WINDOW_S)
    candidate_loop, texts = whisper_loop(f"whisper.decode, {bits} bits", candidate.network, speech, features)

    def evaluated(window_s: float) -> Evaluation:
        drafts = baseline.drafts
        return evaluator.evaluate(candidate, window_s=window_s, encoder_key=f"{window_s}", drafts=drafts)

    return [
        loop,
        run("evaluator, original, no drafts", baseline, original_texts),
        candidate_loop,
        run(f"evaluator, {bits} bits, drafts", evaluated(FULL_WINDOW_S), texts),
        run(f"... {SHORT_WINDOW_S:g} s window", evaluated(SHORT_WINDOW_S), texts),
        run("... 30 s, encoder outputs reused", evaluated(FULL_WINDOW_S), texts),
    ], sgemm_gflops()


def quantised(model: LoadedModel, bits: int) -> Recipe:
    """All linear layers at these bits per channel, the rest as it is stored."""
    original = Recipe.original(model.dimensions, stored_bits=model.stored_bits)
    return original.with_each_layer(attention_bits=bits, ffn_bits=bits)


@torch.inference_mode()
def whisper_loop(
    name: str, network: Whisper, speech: SpeechSet, features: CachedFeatures
) -> tuple[Run, tuple[str, ...]]:
    encoder_s = after_encoder_s = 0.0
    texts = []
    for utterance in speech.utterances:
        decoding = whisper.DecodingOptions(language=language_of(utterance), without_timestamps=True, fp16=False)
        started = perf_counter()
        encoded = network.encoder(features.mel(utterance)[None])[0]
        between = perf_counter()
        texts.append(str(whisper.decode(network, encoded, decoding).text))
        encoder_s += between - started
        after_encoder_s += perf_counter() - between
    count = len(texts)
    timed = Run(
        name=name, utterances=count, encoder_s=encoder_s, after_encoder_s=after_encoder_s, identical_texts=count
    )
    return timed, tuple(texts)


def run(name: str, evaluation: Evaluation, texts: tuple[str, ...]) -> Run:
    said = [utterance.hypothesis.text for utterance in evaluation.utterances]
    return Run(
        name=name,
        utterances=len(said),
        encoder_s=evaluation.encoder_s,
        after_encoder_s=evaluation.decoder_s,
        identical_texts=sum(ours == theirs for ours, theirs in zip(said, texts, strict=True)),
    )


def median_run(same: tuple[Run, ...]) -> Run:
    """Median seconds of the repeats, fewest identical texts."""
    return replace(
        same[0],
        encoder_s=median(twin.encoder_s for twin in same),
        after_encoder_s=median(twin.after_encoder_s for twin in same),
        identical_texts=min(twin.identical_texts for twin in same),
    )


def encoder_gflop(dimensions: Dimensions) -> float:
    """GFLOP of the encoder for one 30 s window."""
    items = operations(dimensions, Recipe.original(dimensions))
    return sum(item.flops for item in items if item.stage == "encoder") / 1e9


def sgemm_gflops() -> float:
    """Best of ten float32 matrix products of 2048 x 2048, in GFLOP/s."""
    a, b = torch.rand(2, SGEMM_SIZE, SGEMM_SIZE)

    def seconds(product: Callable[[], object]) -> float:
        started = perf_counter()
        product()
        return perf_counter() - started

    return 2 * SGEMM_SIZE**3 / min(seconds(lambda: torch.mm(a, b)) for _ in range(10)) / 1e9


def report(runs: list[Run], peak: float, gflop: float, *, as_json: bool) -> None:
    loop = {False: runs[0], True: runs[2]}
    rows = []
    for index, run in enumerate(runs):
        reference = loop[index >= 2]
        rows.append(
            asdict(run)
            | {
                "utterances_per_s": run.utterances / run.whole_s,
                "after_encoder_speedup": reference.after_encoder_s / run.after_encoder_s,
                "whole_speedup": reference.whole_s / run.whole_s,
            }
        )
    share = gflop * runs[1].utterances / runs[1].encoder_s / peak
    if as_json:
        facts = {"threads": torch.get_num_threads(), "sgemm_gflops": peak, "encoder_share_of_sgemm": share}
        print(json.dumps(facts | {"runs": rows}, indent=2))
        return
    print(f"{runs[0].utterances} utterances, {torch.get_num_threads()} threads")
    print(f"{'':34} {'encoder s':>10} {'after s':>8} {'utt/s':>6} {'after':>6} {'whole':>6} {'identical texts':>16}")
    for row in rows:
        print(
            f"{row['name']:34} {row['encoder_s']:10.1f} {row['after_encoder_s']:8.1f} {row['utterances_per_s']:6.2f} "
            f"{row['after_encoder_speedup']:5.1f}x {row['whole_speedup']:5.1f}x "
            f"{row['identical_texts']:>12}/{row['utterances']}"
        )
    print(f"float32 encoder: {share:.0%} of the measured sgemm peak of {peak:.0f} GFLOP/s ({gflop:.1f} GFLOP a clip)")


if __name__ == "__main__":
    main()
