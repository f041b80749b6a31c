"""Everything that the trials of one run share, loaded and checked before the first of them."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from common.errors import InputError
from common.files import sha256_of_text
from common.freed_memory import give_back_freed_memory
from compression.calibration.calibration import Calibration
from compression.compress import compress
from compression.recipe.allocation import Sensitivity
from compression.recipe.recipe import Recipe
from compression.techniques.compressed import Compressed
from compression.techniques.trained_weights import Weights, load_recovered
from compression.techniques.vocabulary import unknown_words
from compression.whisper.load import LoadedModel
from devices.profile import DeviceProfile
from evaluators.accuracy.divergence_meter import DivergenceMeter
from evaluators.accuracy.evaluator import Evaluator
from evaluators.accuracy.known_divergences import DIVERGENCE_VERSION, KnownDivergences
from evaluators.accuracy.known_transcripts import KnownTranscripts
from evaluators.learning.calibration import calibrate, identity_of, sensitivity_profile
from evaluators.speech.divergence_clips import clips_digest, draw_clips
from evaluators.speech.speech_set import SpeechSet
from search.configuration.config import SearchConfig
from search.limits.budget import CostLimits
from search.loaded import Choices, Loaded, load_all, target_of
from search.loading import Say
from search.records.folder import RunFolder
from search.records.run_records import RunFacts
from search.space.genes import MEAN_BITS, VOCABULARY, Value
from search.space.space import MEASURE, PRESETS, Space, check_choices, common_bits, with_original

UNLABELLED, CLIPS = "unlabelled_sha256", "clips_sha256"
GRID_FIELDS = ("group_size", "symmetric", "rounding")
"""Of a recipe: what decides, beside bits, how weights are rounded."""


@dataclass(frozen=True, kw_only=True)
class Session:
    """`confirm` is None when the run has no confirm set. `recovered`: the run's folder of trained weights.

    `training`: what may be trained on; None where nothing is left that the run is not measured on.
    `meter`, `divergences`: None where the run does not judge by divergence. `unlabelled`: the recordings without
    transcripts that it judges by besides, if any; `clips_digest`: of what it hears of both.
    """

    config: SearchConfig
    profile: DeviceProfile
    model: LoadedModel
    original: Recipe
    space: Space
    calibration: Calibration
    calibration_digest: str
    calibration_utterances: int
    limits: CostLimits
    evaluator: Evaluator
    confirm: Evaluator | None
    meter: DivergenceMeter | None = None
    divergences: KnownDivergences | None = None
    unlabelled: SpeechSet | None = None
    clips_digest: str | None = None
    recovered: Path | None = None
    training: SpeechSet | None = None

    @property
    def target(self) -> str:
        """The runtime that the front is exported to."""
        return target_of(self.config.runtime, self.profile)

    def weights(self, recipe: Recipe) -> Weights | None:
        """The weights that were trained for a recipe, if it has any. Raises InputError when they are missing."""
        return load_recovered(recipe, self.recovered and self.recovered / recipe.id)

    def network(self, recipe: Recipe) -> Compressed:
        """The compressed network of a recipe. Raises as `compress` and `weights`."""
        return compress(self.model, recipe, self.calibration, self.weights(recipe))

    def forget_outputs(self) -> None:
        """Drop the outputs of encoders that are kept: training wants the memory."""
        for keeper in (self.evaluator, self.confirm, self.meter):
            if keeper:
                keeper.forget()
        give_back_freed_memory()

    @property
    def facts(self) -> RunFacts:
        """What the run's memory keeps about it."""
        speech, confirm = self.evaluator.speech, self.confirm.speech if self.confirm else None
        return RunFacts(
            model=self.model.name,
            device=self.profile.name,
            speech=speech.name,
            confirm_speech=confirm.name if confirm else None,
            normaliser=self.evaluator.normaliser,
            wer_budget=self.config.wer_budget,
            utterances=len(speech.utterances),
            broken_lines=len(speech.broken),
            confirm_broken_lines=len(confirm.broken) if confirm else 0,
            dimensions=self.model.dimensions,
            limits=self.limits,
            group_budget=self.config.group_budget,
            confidence=self.config.confidence,
            min_language_accuracy=self.config.min_language_accuracy,
        )

    @property
    def digests(self) -> dict[str, str]:
        """SHA-256 of everything outside the configuration that the results depend on."""
        digests = {
            "model_sha256": self.model.digest,
            "speech_sha256": self.evaluator.speech.digest,
            "device_sha256": self.profile.digest,
            "calibration_sha256": self.calibration_digest,
            "space_sha256": sha256_of_text(json.dumps([MEASURE, dict(self.space.choices)])),
        }
        if self.confirm:
            digests["confirm_sha256"] = self.confirm.speech.digest
        if self.unlabelled:
            digests[UNLABELLED] = self.unlabelled.digest
        if self.clips_digest:
            digests[CLIPS] = self.clips_digest
        return digests


def open_session(config: SearchConfig, say: Say, check: Callable[[Loaded], None] | None = None) -> Session:
    """Load and check everything; the errors that a user can cause come from here, before any trial.

    `check`: what else is to be checked before anything takes long.
    """
    return _open(config, say, _refuse, check)


def _refuse(message: str) -> None:
    raise InputError(message)


def _open(config: SearchConfig, say: Say, complain: Say, check: Callable[[Loaded], None] | None = None) -> Session:
    """`complain`: told of a confirm set that is no good for a new run."""
    loaded = load_all(config, say, complain)
    if check:
        check(loaded)
    calibration = _calibration(loaded, say)
    return Session(
        config=config,
        profile=loaded.profile,
        model=loaded.model,
        original=loaded.original,
        space=_space(loaded, calibration, say),
        calibration=calibration,
        calibration_digest=loaded.calibration_speech.digest,
        calibration_utterances=loaded.calibration_utterances,
        limits=config.cost_limits(loaded.profile.ram_available_mb),
        evaluator=loaded.evaluator,
        confirm=loaded.confirm,
        unlabelled=loaded.unlabelled,
        training=loaded.speech_to_train_on,
        **_divergence_parts(loaded),
    )


def _divergence_parts(loaded: Loaded) -> dict[str, Any]:
    """The session's `meter` and `divergences`, where its engine judges by divergence."""
    config, model, speech = loaded.config, loaded.model, loaded.calibration_speech
    if config.engine != "evolution":
        return {}
    utterances, count = loaded.speech_for_divergence, config.divergence_clips
    clips = clips_digest(utterances, count, seed=config.seed, widen=config.widen)
    calibrated = identity_of(model, speech, loaded.calibration_utterances)
    drawn_clips = draw_clips(utterances, count, seed=config.seed, widen=config.widen)
    return {
        "meter": DivergenceMeter(model, drawn_clips, KnownTranscripts(f"{model.digest}/{clips}")),
        "divergences": KnownDivergences(f"{model.digest}/{calibrated}/{clips}"),
        "clips_digest": sha256_of_text(f"{DIVERGENCE_VERSION}/{clips}"),
    }


def _calibration(loaded: Loaded, say: Say) -> Calibration:
    speech, limit = loaded.calibration_speech, loaded.calibration_utterances
    count = min(limit, len(speech.utterances))
    say(f"Calibrating on {count} utterances of {speech.name} (once: the result is cached)")
    return calibrate(loaded.model, speech, limit=limit, features=loaded.features)


def _space(loaded: Loaded, calibration: Calibration, say: Say) -> Space:
    choices = _choices(loaded, say)
    space = Space(
        original=loaded.original,
        dimensions=loaded.model.dimensions,
        choices=choices,
        importance=calibration.importance(MEASURE),
        layer_importance=calibration.layer_importance,
        sensitivity=_sensitivity(loaded, choices, say) if MEAN_BITS in choices else {},
        channel_block=loaded.profile.runtime.channel_multiple,
        vocabulary_language=loaded.language,
    )
    check_choices(space, loaded.profile.runtime)
    return space


def _choices(loaded: Loaded, say: Say) -> dict[str, tuple[Value, ...]]:
    """The preset's or the user's own, without what nobody could choose, with the original's values."""
    model, space = loaded.model, loaded.config.space
    choices = loaded.own_choices
    if choices is None:
        choices = PRESETS[space](model.dimensions, loaded.profile.runtime, model.stored_bits)
    choices = _with_known_words(choices, loaded.language, space=space, say=say)
    return with_original(choices, loaded.original, model.dimensions)


def _sensitivity(loaded: Loaded, choices: Choices, say: Say) -> Sensitivity:
    say("Profiling what rounding costs each matrix (once: the result is cached)")
    return sensitivity_profile(
        loaded.model,
        loaded.calibration_speech,
        limit=loaded.calibration_utterances,
        features=loaded.features,
        grid=_first_grid(loaded.original, choices),
        bits=common_bits(loaded.profile.runtime, loaded.model.stored_bits),
    )


def _first_grid(original: Recipe, choices: Choices) -> Recipe:
    """The original with the first value of all that decides how weights are rounded, which stands for the others."""
    grid: dict[str, Any] = {name: choices[name][0] for name in GRID_FIELDS if name in choices}
    return replace(original, **grid)


def _with_known_words(choices: Choices, language: str, *, space: str, say: Say) -> Choices:
    """A preset's choices without the vocabulary where nobody knows the words of the language.

    Raises InputError where a space of the user's own asks for it.
    """
    reason = unknown_words(language) if VOCABULARY in choices else None
    if reason is None:
        return choices
    if space not in PRESETS:
        raise InputError(f"space {space}: {VOCABULARY} for {language}: {reason}; or leave this gene out")
    say(f"The vocabulary stays whole, for {language}: {reason}")
    return {name: values for name, values in choices.items() if name != VOCABULARY}


def reopen_session(folder: RunFolder, say: Say, compute: str | None = None) -> Session:
    """The session of a run that exists; `compute`: elsewhere than the run.

    Raises InputError when the model, the speech or the device profile changed since the run began.
    """
    config = folder.config()
    if compute:
        config = config.model_copy(update={"compute": compute})
    opened = _open(config, say, lambda message: say(f"Note: {message}"))
    session = replace(opened, recovered=folder.recovered)
    for change in folder.version_changes():
        say(f"Note: {change}")
    changed = changed_digests(folder.environment(), session.digests)
    if changed:
        raise InputError(f"{folder.path} cannot go on: {', '.join(changed)} changed since it began; start a new run")
    return session


def changed_digests(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """The names of those that are others than before; one that was not kept then is none of them.

    Recordings without transcripts may not come or go either: what was judged would no longer compare.
    """
    compared = {name for name in now if name in before} | ({UNLABELLED} & (before.keys() | now.keys()))
    return sorted(name for name in compared if before.get(name) != now.get(name))
