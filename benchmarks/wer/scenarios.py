"""An article's three recipes, made by hand for a phone, a camera and a car: measured, and beside what the search finds.

    python benchmarks/wer/scenarios.py --data MANIFEST --calibration MANIFEST [--confirm MANIFEST] [--model base]
        [--search RUN... | --minutes N] [--recovered FOLDER...] [--only NAME...] --out FOLDER [--json]

Each recipe (`article.py`) is compressed, scored, exported to ONNX Runtime and verified as a search does it with its
front, and priced on the device beside the original and the article's claim. The search's trials are those of --search,
runs of the same model and speech, priced for the device (the run made for it, or else the first); without --search a
run of N minutes is made in FOLDER/NAME/search, and gone on with by the same command. A trial of the front dominates a
recipe when size, FLOPs, latency and WER on --data are all no higher.

FOLDER/NAME/recipe.json is the recipe by hand. --recovered takes what `benchmarks/wer/recovery.py --recipe
FOLDER/camera/recipe.json --window 30` makes of one: it takes that recipe's place.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from article import SCENARIOS, Claim, Scenario
from rich.console import Console

from common.errors import InputError, WhisperfitError
from common.files import write_text_whole
from compression.recipe.recipe import Recipe
from compression.techniques.trained_weights import RECIPE_FILE, load_recovered, save_recovered
from evaluators.accuracy.error_rate import ErrorRate
from evaluators.accuracy.evaluator import Drafts, Evaluator
from search.artifacts import make_artifact
from search.commands.baseline import read_recipe
from search.commands.search import resume_search, run_new_search
from search.configuration.config import SearchConfig
from search.outcome import ArtifactFigures, Outcome
from search.pricing import trial_costs
from search.records.folder import RunFolder
from search.records.run_records import find_outcome, load_facts
from search.records.study_store import StudyStore
from search.reprice import Target, reprice
from search.session import Session, open_session
from search.trial import Trial, TrialCosts


@dataclass(frozen=True, kw_only=True)
class Wer:
    """A fraction with its 95 % interval."""

    wer: float
    low: float
    high: float

    @classmethod
    def of(cls, rate: ErrorRate) -> "Wer":
        return cls(wer=rate.wer, low=rate.low, high=rate.high)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One recipe on this machine: WER on --data and --confirm, and its artifact, or in `note` why there is none."""

    recipe_id: str
    summary: str
    wer: Wer
    wer_confirm: Wer | None
    artifact: ArtifactFigures | None
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Figures:
    """The same with what it costs on the scenario's device."""

    costs: TrialCosts
    measured: Measured

    def dominates(self, other: "Figures") -> bool:
        """Whether nothing is higher: size, FLOPs, latency, WER."""
        pairs = zip(self._compared, other._compared, strict=True)
        return all(ours <= theirs for ours, theirs in pairs)

    @property
    def _compared(self) -> tuple[float, ...]:
        costs, measured = self.costs, self.measured
        if costs.latency_ms is None:
            raise InputError(f"recipe {measured.recipe_id} does not run on the device")
        return costs.size_mb, costs.flops_g, costs.latency_ms, measured.wer.wer


@dataclass(frozen=True, kw_only=True)
class Result:
    """`found`: the search's trial that dominates the recipe by hand, or else the one that it recommends."""

    name: str
    device: str
    claim: Claim
    original: Figures
    by_hand: Figures
    found: Figures
    found_trial: int
    run: str
    is_dominated: bool
    is_trained: bool


class Bench:
    """Measures recipes of one model on the same speech, each once."""

    def __init__(self, models: Path) -> None:
        """`models`: where artifacts are written."""
        self._models = models
        self._measured: dict[str, Measured] = {}
        self._drafts: dict[str, Drafts] = {}

    def figures(self, session: Session, recipe: Recipe) -> Figures:
        """A recipe on the session's device."""
        if recipe.id not in self._measured:
            self._measured[recipe.id] = self._measure(session, recipe)
        costs = trial_costs(recipe, session.model.dimensions, session.profile, session.config)
        return Figures(costs=costs, measured=self._measured[recipe.id])

    def _measure(self, session: Session, recipe: Recipe) -> Measured:
        network = session.network(recipe)

        def wer(evaluator: Evaluator) -> Wer:
            speech = evaluator.speech.digest
            evaluation = evaluator.evaluate(network, window_s=recipe.window_s, drafts=self._drafts.get(speech))
            self._drafts.setdefault(speech, evaluation.drafts)
            return Wer.of(evaluation.accuracy.rate)

        record = make_artifact(session, recipe, self._models / recipe.id)
        return Measured(
            recipe_id=recipe.id,
            summary=recipe.summary(),
            wer=wer(session.evaluator),
            wer_confirm=wer(session.confirm) if session.confirm else None,
            artifact=record.figures,
            note=record.note,
        )


def by_hand(name: str, options: argparse.Namespace) -> tuple[Session, Recipe]:
    """A scenario's session and recipe, trained if --recovered was made of it; the untrained one goes to its folder."""
    scenario, folder = SCENARIOS[name], options.out / name
    session = open_session(SearchConfig.build(None, flags_of(scenario, options)), Console(stderr=True).print)
    recipe = scenario.recipe(session.original, session.calibration).canonical(session.model.dimensions)
    folder.mkdir(parents=True, exist_ok=True)
    write_text_whole(folder / RECIPE_FILE, recipe.to_json() + "\n")
    for trained in options.recovered:
        better = read_recipe(trained / RECIPE_FILE)
        weights = load_recovered(better, trained)
        if weights is not None and replace(better, recovery=None) == recipe:
            kept = folder / "recovered"
            save_recovered(kept / better.id, better, weights)
            return replace(session, recovered=kept), better
    return session, recipe


def run_of(scenario: Scenario, folder: Path, options: argparse.Namespace) -> RunFolder:
    """The run whose front is compared: one of --search, or one of the scenario's own, made or gone on with."""
    if options.search:
        runs = [RunFolder.open(path) for path in options.search]
        return next((run for run in runs if run.config().device == scenario.device), runs[0])
    run = RunFolder(folder / "search")
    if run.holds_run:
        resume_search(run.path, hours=None, trials=None, compute=None, as_json=False)
    else:
        run_new_search(out=run.path, config_file=None, flags=flags_of(scenario, options), as_json=False)
    return run


def flags_of(scenario: Scenario, options: argparse.Namespace) -> dict[str, Any]:
    """A search's options."""
    return {
        "model": options.model,
        "device": scenario.device,
        "data": options.data,
        "confirm": options.confirm,
        "calibration": options.calibration,
        "language": options.language,
        "threads": options.threads,
        "hours": options.minutes / 60,
    }


def outcome_of(run: RunFolder, session: Session) -> Outcome:
    """What the run found, at the device's prices of today. Raises InputError for another model or speech."""
    store, before = StudyStore(run.study), run.environment()
    for name in ("model_sha256", "speech_sha256"):
        if before.get(name) != session.digests[name]:
            raise InputError(f"--search {run.path}: its {name} is not that of --model and --data")
    facts, profile = load_facts(store), session.profile
    config = SearchConfig.build(run.config_file, {"device": profile.name})
    target = Target(profile=profile, config=config, dimensions=facts.dimensions, run_device=facts.device)
    limits = config.cost_limits(profile.ram_available_mb)
    trials = tuple(reprice(store.trials(), target))
    return find_outcome(store, replace(facts, device=profile.name, limits=limits), trials)


def figures_of(trial: Trial, outcome: Outcome) -> Figures:
    """What a run knows of a trial that it scored."""
    if trial.accuracy is None:
        raise ValueError(f"trial {trial.number} was not scored")
    confirmation = outcome.confirmations.get(trial.recipe.id)
    measured = Measured(
        recipe_id=trial.recipe.id,
        summary=trial.recipe.summary(),
        wer=Wer.of(trial.accuracy.rate),
        wer_confirm=Wer.of(confirmation.rate) if confirmation else None,
        artifact=outcome.figures(trial),
        note="not kept",
    )
    return Figures(costs=trial.costs, measured=measured)


def found_by(outcome: Outcome, by_hand: Figures) -> tuple[Trial, bool]:
    """The cheapest trial of the front that dominates a recipe and True, else the recommended one and False."""
    for trial in outcome.front:
        if figures_of(trial, outcome).dominates(by_hand):
            return trial, True
    return outcome.recommended or outcome.baseline, False


def result_of(name: str, session: Session, recipe: Recipe, bench: Bench, options: argparse.Namespace) -> Result:
    """Measure one scenario."""
    scenario = SCENARIOS[name]
    run = run_of(scenario, options.out / name, options)
    outcome = outcome_of(run, session)
    Console(stderr=True).print(f"{name}, {scenario.device}: {recipe.summary()}", highlight=False, markup=False)
    original, hand = bench.figures(session, session.original), bench.figures(session, recipe)
    trial, is_dominated = found_by(outcome, hand)
    return Result(
        name=name,
        device=scenario.device,
        claim=scenario.claim,
        original=original,
        by_hand=hand,
        found=figures_of(trial, outcome),
        found_trial=trial.number,
        run=str(run.path),
        is_dominated=is_dominated,
        is_trained=recipe.recovery is not None,
    )


def markdown(result: Result) -> Iterator[str]:
    """One scenario as a table; shares are of the original."""
    columns, claim = (result.original, result.by_hand, result.found), result.claim
    yield f"### {result.name}: {result.device}\n"
    yield f"| | original | by hand{', trained' if result.is_trained else ''} | search | claimed |"
    yield "|---|---|---|---|---|"
    yield _line("WER %", (_percent(column.measured.wer) for column in columns))
    yield _line("WER %, confirm", (_percent(column.measured.wer_confirm) for column in columns))
    for label, name, claimed in (
        ("MB of weights", "size_mb", claim.size),
        ("GFLOPs", "flops_g", claim.flops),
        ("ms on the device", "latency_ms", claim.latency),
        ("MB of memory there", "peak_memory_mb", claim.memory),
    ):
        values = [getattr(column.costs, name) for column in columns]
        cells = (f"{value:,.1f} ({value / values[0]:.0%})" for value in values)
        yield _line(label, cells, "" if claimed is None else f"{claimed:.0%}")
    for label, name in (("MB of files", "size_mb"), ("ms here", "host_latency_ms"), ("MB here", "host_memory_mb")):
        artifacts = [(column.measured.artifact, column.measured.note) for column in columns]
        yield _line(label, (f"{getattr(made, name):,.1f}" if made else note for made, note in artifacts))
    summaries = [column.measured.summary for column in columns]
    verdict = "dominates" if result.is_dominated else "does not dominate"
    yield f"\nClaimed: {claim.text}. By hand: {summaries[1]}."
    yield f"The search's trial {result.found_trial} ({summaries[2]}) {verdict} it.\n"


def _line(label: str, cells: Iterator[str], claimed: str = "") -> str:
    return f"| {label} | {' | '.join(cells)} | {claimed} |"


def _percent(wer: Wer | None) -> str:
    return f"{100 * wer.wer:.2f} ({100 * wer.low:.2f} to {100 * wer.high:.2f})" if wer else "-"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny.en")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--confirm", type=Path)
    parser.add_argument("--calibration", type=Path, required=True)
    parser.add_argument("--language", help="where the speech sets do not state it")
    parser.add_argument("--search", type=Path, nargs="*", default=(), metavar="RUN")
    parser.add_argument("--minutes", type=float, default=60.0, help="of a search of the scenario's own")
    parser.add_argument("--recovered", type=Path, nargs="*", default=(), metavar="FOLDER")
    parser.add_argument("--only", nargs="*", choices=SCENARIOS, default=tuple(SCENARIOS))
    parser.add_argument("--threads", type=int)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def main() -> int:
    options = parse()
    try:
        recipes = {name: by_hand(name, options) for name in options.only}
        if sum(recipe.recovery is not None for _, recipe in recipes.values()) < len(options.recovered):
            raise InputError("--recovered: a folder was not made of any of these recipes")
        bench = Bench(options.out / "models")
        results = [result_of(name, session, recipe, bench, options) for name, (session, recipe) in recipes.items()]
    except WhisperfitError as error:
        print(f"scenarios: {error}", file=sys.stderr)
        return 2
    if options.json:
        print(json.dumps({"model": options.model, "scenarios": [asdict(result) for result in results]}, indent=1))
    else:
        print("\n".join(line for result in results for line in markdown(result)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
