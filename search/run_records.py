"""What a run's store holds beside its trials, and the outcome that follows from all of it."""

from collections.abc import Sequence
from dataclasses import dataclass

from common.errors import InputError
from compression.recipe.dimensions import Dimensions
from compression.recipe.recipe import Recipe
from search.engines.study_store import StudyStore
from search.front import front, least_violating, recommend
from search.limits.budget import CostLimits, WerBudget
from search.limits.group_budget import find_group_limits
from search.outcome import ArtifactRecord, Confirmation, Outcome
from search.record_json import RecordFormat
from search.trial import Trial

_FACTS, _ELAPSED, _CONFIRMATION, _ARTIFACT = "facts", "elapsed_s", "confirmation/", "artifact/"


@dataclass(frozen=True, kw_only=True, slots=True)
class RunFacts:
    """What was known before the first trial: names, and what the speech sets hold."""

    model: str
    device: str
    speech: str
    confirm_speech: str | None
    normaliser: str
    wer_budget: str
    utterances: int
    broken_lines: int
    confirm_broken_lines: int
    dimensions: Dimensions
    limits: CostLimits | None = None
    """None in runs from before limits were kept."""
    group_budget: str | None = None


_FACTS_FORMAT = RecordFormat(RunFacts, "record of its set-up")
_CONFIRMATION_FORMAT = RecordFormat(Confirmation, "record of a confirmation")
_ARTIFACT_FORMAT = RecordFormat(ArtifactRecord, "record of an artifact")


def save_facts(store: StudyStore, facts: RunFacts) -> None:
    """Keep them with the run."""
    store.remember(_FACTS, _FACTS_FORMAT.write(facts))


def normaliser_note(store: StudyStore, facts: RunFacts) -> str:
    """What to mind where the run's earlier texts were normalised in another way than now; else empty."""
    text = store.recall(_FACTS)
    before = _FACTS_FORMAT.read(text).normaliser if text else facts.normaliser
    if before == facts.normaliser:
        return ""
    return f"earlier errors were counted after the normaliser {before}, new ones after {facts.normaliser}"


def load_facts(store: StudyStore) -> RunFacts:
    """Raises InputError when the run ended before its first trial."""
    text = store.recall(_FACTS)
    if text is None:
        raise InputError("this run ended before its first trial")
    return _FACTS_FORMAT.read(text)


def save_elapsed(store: StudyStore, seconds: float) -> None:
    """Keep how long the run has taken so far."""
    store.remember(_ELAPSED, repr(seconds))


def load_elapsed(store: StudyStore) -> float:
    """Seconds that the run's earlier sessions took."""
    return float(store.recall(_ELAPSED) or 0.0)


def save_confirmation(store: StudyStore, recipe: Recipe, confirmation: Confirmation) -> None:
    """Keep what the confirm set said of a recipe."""
    store.remember(_CONFIRMATION + recipe.id, _CONFIRMATION_FORMAT.write(confirmation))


def load_confirmation(store: StudyStore, recipe: Recipe) -> Confirmation | None:
    """What the confirm set said of a recipe, or None."""
    text = store.recall(_CONFIRMATION + recipe.id)
    return None if text is None else _CONFIRMATION_FORMAT.read(text)


def save_artifact(store: StudyStore, recipe: Recipe, record: ArtifactRecord) -> None:
    """Keep what came of exporting a recipe."""
    store.remember(_ARTIFACT + recipe.id, _ARTIFACT_FORMAT.write(record))


def load_artifact(store: StudyStore, recipe: Recipe) -> ArtifactRecord | None:
    """What came of exporting a recipe, or None."""
    text = store.recall(_ARTIFACT + recipe.id)
    return None if text is None else _ARTIFACT_FORMAT.read(text)


def read_outcome(store: StudyStore) -> Outcome:
    """What the run has found so far. Raises InputError when not even the baseline was scored."""
    return find_outcome(store, load_facts(store), store.trials())


def find_trial(outcome: Outcome, wanted: str | None) -> Trial:
    """The trial of that number or recipe id; None: the recommended one. Raises InputError when there is none."""
    if wanted is None:
        if outcome.recommended is None:
            raise InputError("this run recommends no recipe; choose one from trials.csv: --trial NUMBER")
        return outcome.recommended
    for trial in outcome.trials:
        if wanted in (str(trial.number), trial.recipe.id):
            return trial
    raise InputError(f"--trial {wanted}: no trial has this number or recipe id; it has {len(outcome.trials)} trials")


def find_outcome(store: StudyStore, facts: RunFacts, trials: Sequence[Trial]) -> Outcome:
    """What follows from these trials, with the store's confirmations and artifacts; errors as for `read_outcome`."""
    if not trials:
        raise InputError("this run has no baseline yet: go on with it first (whisperfit resume)")
    if trials[0].accuracy is None:
        raise InputError(f"this run has no baseline: the original model cannot be scored ({trials[0].note})")
    found = front(trials)
    scored = {trial.recipe.id for trial in trials if trial.accuracy}  # not what a device cannot run
    confirmations = {
        name: _CONFIRMATION_FORMAT.read(text) for name, text in store.texts(_CONFIRMATION).items() if name in scored
    }
    artifacts = {name: _ARTIFACT_FORMAT.read(text) for name, text in store.texts(_ARTIFACT).items() if name in scored}
    wer_limit = WerBudget.parse(facts.wer_budget).limit(trials[0].accuracy.rate)
    group_limits = find_group_limits(facts.group_budget, trials[0].accuracy.groups)
    recommended = recommend(
        found, confirmations, artifacts, wer_limit=wer_limit, group_limits=group_limits, baseline=trials[0]
    )
    return Outcome(
        model=facts.model,
        device=facts.device,
        speech=facts.speech,
        confirm_speech=facts.confirm_speech,
        normaliser=facts.normaliser,
        wer_limit=wer_limit,
        trials=tuple(trials),
        front=found,
        recommended=recommended,
        least_violating=None if recommended else least_violating(trials),
        confirmations=confirmations,
        artifacts=artifacts,
        utterances=facts.utterances,
        broken_lines=facts.broken_lines,
        confirm_broken_lines=facts.confirm_broken_lines,
        limits=facts.limits,
        group_budget=facts.group_budget,
    )
