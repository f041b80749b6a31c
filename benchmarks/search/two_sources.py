"""How well divergence orders recipes as WER does, and what it misses.

    S=../shared/speech/splits
    python benchmarks/search/two_sources.py --run results/second \\
        --data $S/read_search.jsonl --calibration $S/read_calibration.jsonl > benchmarks/results/two_sources.md
    python benchmarks/search/two_sources.py --model base --language en --run results/base ... \\
        > benchmarks/results/two_sources_base.md

Recipes are those that the runs scored on their whole set, each once, without the original. Several runs must have the
same speech and calibration set, and the same errors of the original. The divergence on the clips of a search with seed
0 is measured here as a search measures it; the cache keeps it, so a second call goes on after the first. Fewer clips
are the first of the same ones. `--at-most N` measures the first N recipes only.

Rank correlations are Spearman's. The WER is that of a random half of the utterances, 200 times; beside divergence
stands what the WER of the other half says of it. An utterance counts as one that breaks if the original or a recipe
that is near inserts or leaves out at least half as many words as it has: a loop, or a transcript that ends early. Its
share of the variance is the covariance of its errors with all errors, over recipes.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from sys import stderr

import numpy as np
import numpy.typing as npt
from scipy.stats import spearmanr

from common.errors import CompressionError, EvaluationError
from compression.compress import compress
from compression.whisper.load import load_model
from evaluators.accuracy.divergence import Divergence
from evaluators.accuracy.divergence_meter import DivergenceMeter
from evaluators.accuracy.known_divergences import KnownDivergences
from evaluators.learning.calibration import calibrate, identity_of
from evaluators.speech.divergence_clips import clips_digest, draw_clips
from evaluators.speech.features import CachedFeatures
from search.loading import load_speech, use_threads
from search.records.folder import RunFolder
from search.records.study_store import StudyStore
from search.trial import Trial, UtteranceErrors

SEED = 0
CLIPS = (4, 8, 16, 32)
HALVES = 200
NEAR = 0.1
"""Nats a token: three times what a budget of +10 % allows where k is 3."""
NAMED = 6
"""Utterances and recipes that are named."""

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, eq=False)
class Scored:
    """Recipes with a WER. `errors`, `gaps` (recipes, utterances); `original`, `original_gaps`, `words` (utterances,).

    A gap: the more of insertions and deletions.
    """

    trials: tuple[tuple[str, Trial], ...]
    """Each with the name of its run."""
    names: tuple[str, ...]
    errors: Floats
    gaps: Floats
    original: Floats
    original_gaps: Floats
    words: Floats

    def breaks(self, recipes: Flags) -> Flags:
        """(utterances,): where the original or one of these recipes lost or invented half of the words."""
        return np.asarray((np.vstack([self.gaps[recipes], self.original_gaps]) >= self.words / 2).any(0))

    def rises(self, utterances: Flags) -> Floats:
        """(recipes,): by which share more errors than the original's are made in these."""
        return np.asarray(self.errors[:, utterances].sum(1) / self.original[utterances].sum() - 1)


def main() -> None:
    options = _parser().parse_args()
    use_threads(options.threads)
    scored = read(options.run)
    found = list(divergences(options, scored.trials[: options.at_most]))
    kept = [index for index, one in enumerate(found) if one]
    print(report(options, only(scored, kept), [one for one in found if one]))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, action="append", required=True, help="may be given again")
    parser.add_argument("--model", default="tiny.en")
    parser.add_argument("--data", type=Path, required=True, help="the speech that the runs scored")
    parser.add_argument("--calibration", type=Path, required=True)
    parser.add_argument("--at-most", type=int, help="recipes, the first ones")
    parser.add_argument("--language", help="where the speech sets do not state it")
    parser.add_argument("--threads", type=int, default=1)
    return parser


def read(runs: Sequence[Path]) -> Scored:
    """All complete trials of the runs but the originals, each recipe once: of the first run that has it.

    Raises ValueError where the original made other errors in one run than in another.
    """
    trials: dict[str, tuple[str, Trial]] = {}
    original: dict[str, UtteranceErrors] | None = None
    for run in runs:
        baseline, *others = StudyStore(run / "study.db").trials()
        known = by_utterance(baseline)
        if original and {u: e.errors for u, e in known.items()} != {u: e.errors for u, e in original.items()}:
            raise ValueError(f"{run}: the original made other errors than in {runs[0]}")
        original = original or known
        for trial in others:
            if trial.state == "complete" and trial.recipe.id != baseline.recipe.id:
                trials.setdefault(trial.recipe.id, (run.name, trial))
    if not original:
        raise ValueError("no run has a WER of the original")
    names = tuple(original)
    each = [by_utterance(trial) for _, trial in trials.values()]
    return Scored(
        trials=tuple(trials.values()),
        names=names,
        errors=np.array([[one[name].errors for name in names] for one in each], float),
        gaps=np.array([[gap(one[name]) for name in names] for one in each], float),
        original=np.array([original[name].errors for name in names], float),
        original_gaps=np.array([gap(original[name]) for name in names], float),
        words=np.array([original[name].words for name in names], float),
    )


def by_utterance(trial: Trial) -> dict[str, UtteranceErrors]:
    """A trial's errors by id of the utterance."""
    return {one.id: one for one in trial.accuracy.utterances} if trial.accuracy else {}


def gap(errors: UtteranceErrors) -> int:
    """The more of words that were invented and words that were lost."""
    return max(errors.insertions, errors.deletions)


def only(scored: Scored, kept: Sequence[int]) -> Scored:
    """Without the other recipes."""
    return Scored(
        trials=tuple(scored.trials[index] for index in kept),
        names=scored.names,
        errors=scored.errors[kept],
        gaps=scored.gaps[kept],
        original=scored.original,
        original_gaps=scored.original_gaps,
        words=scored.words,
    )


def divergences(options: argparse.Namespace, trials: Sequence[tuple[str, Trial]]) -> Iterator[Divergence | None]:
    """Of each recipe on all clips, fitted to as many utterances as in its run; None where it can no longer be made."""
    model = load_model(options.model)
    speech, spoken = (
        load_speech(path, model, language=options.language, skip_broken=False)
        for path in (options.data, options.calibration)
    )
    features = CachedFeatures(n_mels=model.dimensions.n_mels)
    fitted = {run.name: RunFolder(run).config().calibration_utterances for run in options.run}
    most, utterances = max(CLIPS), speech.utterances
    digest = clips_digest(utterances, most, seed=SEED, widen=True)
    calibrations, known = {}, {}
    for count in sorted(set(fitted.values())):
        calibrations[count] = calibrate(model, spoken, limit=count, features=features)
        known[count] = KnownDivergences(f"{model.digest}/{identity_of(model, spoken, count)}/{digest}")
    meter = DivergenceMeter(model, draw_clips(utterances, most, seed=SEED, widen=True))
    for number, (run, trial) in enumerate(trials):
        recipe, count = trial.recipe, fitted[run]
        found = known[count].find(recipe.id)
        if found is None or found.clips < meter.clips:
            try:
                network = compress(model, recipe, calibrations[count])
                found = meter.measure(network, window_s=recipe.window_s, known=found)
                known[count].keep(recipe.id, found)
            except (CompressionError, EvaluationError) as error:
                print(f"{recipe.id}: left out, {error}", file=stderr)
        print(f"{number + 1} of {len(trials)}", file=stderr, flush=True)
        yield found


def report(options: argparse.Namespace, scored: Scored, found: Sequence[Divergence]) -> str:
    """All of it, in Markdown."""
    clips = [count for count in CLIPS if count <= min(one.clips for one in found)]
    by_clips = {count: np.array([one.of_first(count).mean for one in found]) for count in clips}
    near = by_clips[max(clips)] <= NEAR
    runs = ", ".join(f"{run} {sum(name == run for name, _ in scored.trials)}" for run in _runs(scored))
    lines = [
        f"# Divergence and WER of the same recipes, {options.model}",
        "",
        f"{len(found)} recipes ({runs}), {len(scored.names)} utterances, {scored.words.sum():.0f} words, "
        f"{scored.original.sum():.0f} errors of the original. Of {max(CLIPS)} clips {min(one.clips for one in found)} "
        "have a transcript that ends.",
        "",
        *correlations(scored, by_clips, near),
        *variance(scored, near),
        *missed(scored, by_clips[max(clips)]),
    ]
    return "\n".join(lines)


def _runs(scored: Scored) -> list[str]:
    return list(dict.fromkeys(name for name, _ in scored.trials))


def correlations(scored: Scored, by_clips: Mapping[int, Floats], near: Flags) -> Iterator[str]:
    """The table of rank correlations."""
    yield "## Rank correlation with the WER of a random half of the utterances"
    yield ""
    yield (
        f"Mean over {HALVES} halves, in brackets from the 5th to the 95th of a hundred. `other half`: of its WER with "
        "that of the half."
    )
    yield f"`near`: recipes whose divergence on the most clips is at most {NEAR} nats a token."
    yield ""
    yield "| recipes | utterances | " + " | ".join(f"{count} clips" for count in by_clips) + " | other half |"
    yield "|---|---|" + "---|" * (len(by_clips) + 1)
    every, breaks = np.ones(len(scored.names), bool), scored.breaks(near)
    for name, recipes in (("all", np.ones(len(near), bool)), ("near", near)):
        for what, utterances in (("all", every), (f"without the {breaks.sum()} that break", ~breaks)):
            drawn = halves(scored, by_clips, recipes, utterances)
            yield f"| {name}, {recipes.sum()} | {what} | " + " | ".join(map(_spread, drawn)) + " |"
    yield ""


def halves(scored: Scored, by_clips: Mapping[int, Floats], recipes: Flags, utterances: Flags) -> list[Floats]:
    """By number of clips, and then by the other half's WER: the correlation in every half, (halves,)."""
    rng = np.random.default_rng(SEED)
    places, found = np.flatnonzero(utterances), []
    for _ in range(HALVES):
        half = np.zeros(len(utterances), bool)
        half[rng.permutation(places)[: len(places) // 2]] = True
        wer, other = scored.rises(half)[recipes], scored.rises(utterances & ~half)[recipes]
        found.append([spearmanr(one[recipes], wer).statistic for one in by_clips.values()])
        found[-1].append(spearmanr(other, wer).statistic)
    return list(np.array(found, float).T)


def _spread(values: Floats) -> str:
    low, high = np.percentile(values, [5, 95])
    return f"{values.mean():.2f} ({low:.2f} to {high:.2f})"


def variance(scored: Scored, near: Flags) -> Iterator[str]:
    """Which utterances carry the variance of the WER over recipes that are near."""
    errors, breaks = scored.errors[near], scored.breaks(near)
    covariances = np.array([np.cov(column, errors.sum(1))[0, 1] for column in errors.T])
    shares = covariances / covariances.sum()
    order = np.argsort(-shares)
    yield "## Which utterances carry the variance of the WER"
    yield ""
    yield (
        f"Over the {near.sum()} recipes that are near. {NAMED} of {len(shares)} utterances carry "
        f"{shares[order[:NAMED]].sum():.0%}; the {breaks.sum()} that break, {shares[breaks].sum():.0%}."
    )
    yield ""
    yield "| utterance | share of the variance | words | original's errors | median of recipes | most | breaks in |"
    yield "|---|---|---|---|---|---|---|"
    for place in order[:NAMED]:
        broken = int((scored.gaps[near, place] >= scored.words[place] / 2).sum())
        column = errors[:, place]
        yield (
            f"| {scored.names[place]} | {shares[place]:.0%} | {scored.words[place]:.0f} | {scored.original[place]:.0f} "
            f"| {np.median(column):.0f} | {column.max():.0f} | {broken} |"
        )
    yield ""


def missed(scored: Scored, divergence: Floats) -> Iterator[str]:
    """The recipes whose rise is furthest above what their divergence says."""
    near = divergence <= NEAR
    every, calm = np.ones(len(scored.names), bool), ~scored.breaks(near)
    rises = scored.rises(every)
    slope, slope_calm = (float(np.median(scored.rises(which)[near] / divergence[near])) for which in (every, calm))
    over = rises - slope * divergence
    calm_over = scored.rises(calm) - slope_calm * divergence
    yield "## What divergence missed"
    yield ""
    yield (
        "A rise is the share by which a recipe makes more errors than the original. Of the recipes that are near, "
        f"half have a rise of more than {slope:.1f} x divergence ({slope_calm:.1f} without the utterances that break). "
        f"The standard deviation of rise - that line is {over[near].std():.3f}, without those that break "
        f"{calm_over[near].std():.3f}. The recipes that are furthest above it, and "
        "the utterances in which they make most errors more:"
    )
    yield ""
    yield (
        "| recipe | run, trial | divergence | rise | that line | without those that break "
        "| errors more than the original |"
    )
    yield "|---|---|---|---|---|---|---|"
    for place in [one for one in np.argsort(-over) if near[one]][:NAMED]:
        run, trial = scored.trials[place]
        more = scored.errors[place] - scored.original
        worst = ", ".join(f"{scored.names[u]} +{more[u]:.0f}" for u in np.argsort(-more)[:3] if more[u] > 0)
        yield (
            f"| {trial.recipe.id} | {run}, {trial.number} | {divergence[place]:.4f} | {rises[place]:+.1%} "
            f"| {slope * divergence[place]:+.1%} | {scored.rises(calm)[place]:+.1%} | {worst} |"
        )
    yield ""


if __name__ == "__main__":
    main()
