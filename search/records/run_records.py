"""What a run's store holds beside its trials, and the outcome that follows from all of it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from common.errors import InputError
from compression.recipe.dimensions import Dimensions
from compression.recipe.recipe import Recipe
from search.certainty import Certainty
from search.configuration.config import SearchConfig
from search.configuration.name_or_path import NAMES
from search.configuration.options import with_engine
from search.front import front, least_violating, recommend
from search.limits.budget import CostLimits, WerBudget
from search.limits.group_budget import find_group_limits
from search.limits.verdict import Budgets, keeps_languages, least_on
from search.outcome import ArtifactRecord, Confirmation, Ended, Outcome
from search.record_json import RecordFormat
from search.records.study_store import StudyStore
from search.trial import Trial, TrialAccuracy

_FACTS, _ELAPSED, _CONFIRMATION, _ARTIFACT = "facts", "elapsed_s", "confirmation/", "artifact/"
_CONFIGURATION, _TAKEN_OVER, _ENDED = "configuration", "taken_over", "ended"
_WHOLE_CONFIGURATION, _ENVIRONMENT = "whole_configuration", "environment"
FREE_KEYS = NAMES.keys() | {
    "hours", "trials", "threads", "snr_db", "nni_port", "recover", "recover_share", "patience",
    "on_end", "workers", "storage", "study", "log_format", "compute",
}  # fmt: skip
"""Of a configuration: what may change while a run goes on, or is compared by its content, as noise is in speech."""


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
    confidence: float = 0.5
    min_language_accuracy: float | None = None


def budgets_of(facts: RunFacts) -> Budgets:
    """What the run asks of transcripts."""
    return Budgets(wer=facts.wer_budget, group=facts.group_budget, language_accuracy=facts.min_language_accuracy)


_FACTS_FORMAT = RecordFormat(RunFacts, "record of its set-up")
_CONFIRMATION_FORMAT = RecordFormat(Confirmation, "record of a confirmation")
_ENDED_FORMAT = RecordFormat(Ended, "record of its end")
_ARTIFACT_FORMAT = RecordFormat(ArtifactRecord, "record of an artifact")


def save_configuration(store: StudyStore, config: SearchConfig) -> None:
    """Keep what a run's verdicts depend on."""
    store.remember(_CONFIGURATION, json.dumps(_judging(config), sort_keys=True))


def save_setting(store: StudyStore, config: SearchConfig, environment: Mapping[str, str]) -> None:
    """Keep what a process without the run's folder needs: the whole configuration, versions and digests."""
    store.remember(_WHOLE_CONFIGURATION, json.dumps(config.model_dump(mode="json", exclude_none=True)))
    store.remember(_ENVIRONMENT, json.dumps(dict(environment)))


def load_whole_configuration(store: StudyStore) -> dict[str, Any]:
    """Of a run's last session; places are those of its machine. Raises InputError where no search has begun."""
    values = store.recall_json(_WHOLE_CONFIGURATION)
    if not isinstance(values, dict):
        raise InputError(f"{store.address}: no search has begun there yet")
    return values


def load_environment(store: StudyStore) -> dict[str, str]:
    """Versions and digests, as `environment.json` has them; empty where they were not kept."""
    return dict(store.recall_json(_ENVIRONMENT) or {})


def check_configuration(store: StudyStore, config: SearchConfig) -> None:
    """Raise InputError unless the configuration judges as it did when the run began.

    How long a run goes on may change, and so may paths, whose content is compared by its digests. A run from before
    the configuration was kept is compared with its facts.
    """
    kept = store.recall_json(_CONFIGURATION)
    before = _judged_by(store) if kept is None else with_engine(kept)
    defaults = {name: field.default for name, field in SearchConfig.model_fields.items()}
    for name, value in _judging(config).items():
        was = before.get(name, value if kept is None else defaults.get(name))
        if was != value:
            raise InputError(
                f"config.toml: {name} is {value} and was {was} when this run began, and all its trials are judged by "
                "that: put it back, or start a new run"
            )


def _judging(config: SearchConfig) -> dict[str, Any]:
    values = config.model_dump(mode="json")
    return {name: value for name, value in values.items() if name not in FREE_KEYS}


def _judged_by(store: StudyStore) -> dict[str, Any]:
    """What the facts of a run tell about its configuration; nothing before its first trial."""
    if store.recall(_FACTS) is None:
        return {}
    facts = load_facts(store)
    values: dict[str, Any] = {"wer_budget": facts.wer_budget, "group_budget": facts.group_budget}
    limits = {} if facts.limits is None else asdict(facts.limits)
    return values | {name: value for name, value in limits.items() if name != "max_memory_mb"}  # the device's too


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


def save_ended(store: StudyStore, ended: Ended | None) -> None:
    """Keep why the run ended; None: it goes on."""
    store.remember(_ENDED, _ENDED_FORMAT.write(ended) if ended else "")


def load_ended(store: StudyStore) -> Ended | None:
    """Why the run ended; None while it goes on, and where it was not kept."""
    text = store.recall(_ENDED)
    return _ENDED_FORMAT.read(text) if text else None


def save_taken_over(store: StudyStore, trials: int) -> None:
    """Keep how many of the run's trials another one measured."""
    store.remember(_TAKEN_OVER, str(trials))


def load_taken_over(store: StudyStore) -> int:
    """How many of the run's trials another one measured."""
    return int(store.recall(_TAKEN_OVER) or 0)


def save_confirmation(store: StudyStore, recipe: Recipe, confirmation: Confirmation) -> None:
    """Keep what the confirm set said of a recipe."""
    store.remember(_CONFIRMATION + recipe.id, _CONFIRMATION_FORMAT.write(confirmation))


def load_confirmations(store: StudyStore) -> dict[str, Confirmation]:
    """What the confirm set said, by recipe id."""
    return {recipe_id: _CONFIRMATION_FORMAT.read(text) for recipe_id, text in store.texts(_CONFIRMATION).items()}


def save_artifact(store: StudyStore, recipe: Recipe, record: ArtifactRecord) -> None:
    """Keep what came of exporting a recipe."""
    store.remember(_ARTIFACT + recipe.id, _ARTIFACT_FORMAT.write(record))


def judged(
    accuracy: TrialAccuracy | Confirmation, baseline: TrialAccuracy | Confirmation, facts: RunFacts
) -> Confirmation:
    """What the confirm set says of a recipe, where the original has this accuracy there."""
    limit = WerBudget.parse(facts.wer_budget).limit(baseline.rate)
    groups = find_group_limits(facts.group_budget, baseline.groups)
    broken = groups and groups.broken(accuracy.groups)
    least = least_on(baseline.language_accuracy, facts.min_language_accuracy)
    return Confirmation(
        rate=accuracy.rate,
        within_budget=limit.keeps(accuracy.rate) and not broken and keeps_languages(accuracy.language_accuracy, least),
        groups=accuracy.groups,
        language_accuracy=accuracy.language_accuracy,
    )


def load_artifacts(store: StudyStore) -> dict[str, ArtifactRecord]:
    """What came of exporting recipes, by recipe id."""
    return {recipe_id: _ARTIFACT_FORMAT.read(text) for recipe_id, text in store.texts(_ARTIFACT).items()}


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
    """What follows from these trials, with the store's confirmations and artifacts; errors as for `read_outcome`.

    Where the facts have other budgets than the store's, confirmations are judged by those.
    """
    scored = {trial.recipe.id for trial in trials if trial.accuracy}  # not what a device cannot run
    confirmations = {name: record for name, record in load_confirmations(store).items() if name in scored}
    baseline, before = confirmations.get(trials[0].recipe.id) if trials else None, load_facts(store)
    if baseline and budgets_of(facts) != budgets_of(before):
        confirmations = {name: judged(record, baseline, facts) for name, record in confirmations.items()}
    artifacts = {name: record for name, record in load_artifacts(store).items() if name in scored}
    certainty = certainty_of(facts, trials, confirmations)
    found = outcome_of(facts, trials, front(trials, certainty), confirmations, artifacts, certainty)
    return replace(found, ended=load_ended(store))


def certainty_of(
    facts: RunFacts, trials: Sequence[Trial], confirmations: Mapping[str, Confirmation]
) -> Certainty | None:
    """What these trials say of each other; None before the baseline has a WER."""
    if not trials or trials[0].accuracy is None:
        return None
    rates = {name: confirmation.rate for name, confirmation in confirmations.items()}
    return Certainty.of(trials[0], trials, rates, WerBudget.parse(facts.wer_budget))


def outcome_of(  # noqa: PLR0913, PLR0917 - all that was found out
    facts: RunFacts,
    trials: Sequence[Trial],
    found: tuple[Trial, ...],
    confirmations: dict[str, Confirmation],
    artifacts: dict[str, ArtifactRecord],
    certainty: Certainty | None,
) -> Outcome:
    """What follows from these trials, of which `found` is the front; errors as for `read_outcome`."""
    if not trials:
        raise InputError("this run has no baseline yet: go on with it first (whisperfit resume)")
    if trials[0].accuracy is None:
        raise InputError(f"this run has no baseline: the original model cannot be scored ({trials[0].note})")
    wer_limit = WerBudget.parse(facts.wer_budget).limit(trials[0].accuracy.rate)
    group_limits = find_group_limits(facts.group_budget, trials[0].accuracy.groups)
    recommended = recommend(
        found,
        confirmations,
        artifacts,
        wer_limit=wer_limit,
        group_limits=group_limits,
        min_language_accuracy=facts.min_language_accuracy,
        baseline=trials[0],
        certainty=certainty,
        confidence=facts.confidence,
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
        min_language_accuracy=facts.min_language_accuracy,
        certainty=certainty,
        confidence=facts.confidence,
    )
