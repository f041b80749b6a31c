"""Everything that the trials of one run share, loaded and checked before the first of them."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from common.errors import InputError, UnknownNameError
from common.files import sha256_of_text
from compression.calibration.calibration import Calibration
from compression.compress import compress
from compression.recipe.allocation import Sensitivity
from compression.recipe.recipe import Recipe
from compression.techniques.compressed import Compressed
from compression.techniques.trained_weights import Weights, load_recovered
from compression.techniques.vocabulary import unknown_words
from compression.whisper.load import LoadedModel
from devices.profile import DeviceProfile, load_profile
from evaluators.accuracy.divergence_meter import DivergenceMeter
from evaluators.accuracy.evaluator import Evaluator
from evaluators.accuracy.known_divergences import DIVERGENCE_VERSION, KnownDivergences
from evaluators.accuracy.known_transcripts import KnownTranscripts
from evaluators.learning.calibration import calibrate, identity_of, sensitivity_profile
from evaluators.learning.speech_to_train_on import speech_to_train_on
from evaluators.speech.divergence_clips import clips_digest, draw_clips, drawn
from evaluators.speech.features import CachedFeatures
from evaluators.speech.language import language_of
from evaluators.speech.noisy_speech import with_noise
from evaluators.speech.speech_set import SpeechSet, Utterance, shared_recordings
from search.configuration.config import SearchConfig
from search.limits.budget import CostLimits
from search.limits.group_budget import MIN_WORDS
from search.loading import Say, load_speech, open_model, use_threads
from search.needs.memory import check_fits
from search.records.folder import RunFolder
from search.records.run_records import RunFacts
from search.space.genes import MEAN_BITS, VOCABULARY, Value
from search.space.space import MEASURE, PRESETS, Space, check_choices, common_bits, load_choices, with_original

Choices = Mapping[str, tuple[Value, ...]]
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

    def weights(self, recipe: Recipe) -> Weights | None:
        """The weights that were trained for a recipe, if it has any. Raises InputError when they are missing."""
        return load_recovered(recipe, self.recovered and self.recovered / recipe.id)

    def network(self, recipe: Recipe) -> Compressed:
        """The compressed network of a recipe. Raises as `compress` and `weights`."""
        return compress(self.model, recipe, self.calibration, self.weights(recipe))

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


def open_session(config: SearchConfig, say: Say, check: Callable[["Loaded"], None] | None = None) -> Session:
    """Load and check everything; the errors that a user can cause come from here, before any trial.

    `check`: what else is to be checked before anything takes long.
    """
    return _open(config, say, _refuse, check)


def _refuse(message: str) -> None:
    raise InputError(message)


def _open(config: SearchConfig, say: Say, complain: Say, check: Callable[["Loaded"], None] | None = None) -> Session:
    """`complain`: told of a confirm set that is no good for a new run."""
    loaded = _load(config, say, complain)
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


def _divergence_parts(loaded: "Loaded") -> dict[str, Any]:
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


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """What a session is made of before anything is computed. `own_choices`: of a space's file; None for a preset."""

    config: SearchConfig
    profile: DeviceProfile
    own_choices: Choices | None
    model: LoadedModel
    features: CachedFeatures
    calibration_speech: SpeechSet
    evaluator: Evaluator
    confirm: Evaluator | None
    unlabelled: SpeechSet | None

    @property
    def calibration_utterances(self) -> int:
        """How many utterances recipes are fitted to."""
        return self.config.fitted_utterances(len(self.evaluator.speech.utterances))

    @property
    def speech_for_divergence(self) -> tuple[Utterance, ...]:
        """The search's utterances, and the recordings without transcripts that are not among them.

        Without those that recipes are fitted to, where others are left: there a recipe looks better than it is.
        """
        searched = self.evaluator.speech.utterances
        known = {utterance.recording for utterance in searched}
        more = self.unlabelled.utterances if self.unlabelled else ()
        every = (*searched, *(utterance for utterance in more if utterance.recording not in known))
        fitted = {u.recording for u in self.calibration_speech.utterances[: self.calibration_utterances]}
        return tuple(utterance for utterance in every if utterance.recording not in fitted) or every

    @property
    def speech_to_train_on(self) -> SpeechSet | None:
        """Calibration's and the recordings without transcripts, but nothing that WER or divergence is measured on."""
        config, confirm = self.config, self.confirm.speech.utterances if self.confirm else ()
        clips = drawn(self.speech_for_divergence, config.divergence_clips, seed=config.seed)
        sets = [self.calibration_speech] if config.calibration else []
        sets += [self.unlabelled] if self.unlabelled else []
        return speech_to_train_on(sets, (*self.evaluator.speech.utterances, *confirm, *clips))

    @property
    def original(self) -> Recipe:
        return Recipe.original(self.model.dimensions, stored_bits=self.model.stored_bits)

    @property
    def language(self) -> str:
        """Of the speech that the run is scored on."""
        return _languages(*(one.speech for one in (self.evaluator, self.confirm) if one))


def _load(config: SearchConfig, say: Say, complain: Say) -> Loaded:
    use_threads(config.threads)
    profile, own_choices = load_profile(config.device), _own_choices(config.space)
    for warning in profile.warnings:
        say(f"Warning: {profile.name}: {warning}")
    say(f"Loading {config.model}")
    model = open_model(config.model, say, config.compute)
    if config.min_language_accuracy is not None and not model.dimensions.is_multilingual:
        raise InputError(
            f"--min-language-accuracy: {config.model} knows English only and detects no language; leave it out"
        )
    check_fits(model.name, model.dimensions)
    features = CachedFeatures(n_mels=model.dimensions.n_mels)

    def load(path: Path) -> SpeechSet:
        return load_speech(path, model, language=config.language, skip_broken=config.skip_broken)

    def evaluator(speech: SpeechSet) -> Evaluator:
        noisy = with_noise(speech, config.mixing)
        return Evaluator(
            noisy, dimensions=model.dimensions, features=features, seed=config.seed, normaliser=config.normaliser
        )

    clean = load(config.data)
    calibration_speech = load(config.calibration) if config.calibration else clean
    confirm_speech = load(config.confirm) if config.confirm else None
    if confirm_speech:
        _check_unseen(confirm_speech, clean, clean.utterances, complain)
        if config.calibration:
            heard = calibration_speech.utterances[: config.calibration_utterances]
            _check_unseen(confirm_speech, calibration_speech, heard, complain)
    unlabelled = _load_unlabelled(config, model, say)
    if unlabelled and confirm_speech:
        _check_unseen(confirm_speech, unlabelled, unlabelled.utterances, complain)
    search_evaluator = evaluator(clean)
    check_group_budget(config, search_evaluator)
    return Loaded(
        config=config,
        profile=profile,
        own_choices=own_choices,
        model=model,
        features=features,
        calibration_speech=calibration_speech,
        evaluator=search_evaluator,
        confirm=evaluator(confirm_speech) if confirm_speech else None,
        unlabelled=unlabelled,
    )


def _load_unlabelled(config: SearchConfig, model: LoadedModel, say: Say) -> SpeechSet | None:
    """The recordings without transcripts, if there are any."""
    if config.unlabelled is None:
        return None
    speech = load_speech(
        config.unlabelled, model, language=config.language, skip_broken=config.skip_broken, is_transcribed=False
    )
    for utterance in speech.utterances:
        language_of(utterance)  # where none is stated, nobody could say what the original hears
    left_out = f", {len(speech.broken)} broken ones left out" if speech.broken else ""
    say(f"Judging by divergence on {len(speech.utterances)} recordings of {speech.name} too{left_out}")
    return speech


def _own_choices(space: str) -> Choices | None:
    """Those of a space's file; None for a preset. Raises UnknownNameError when it is neither."""
    if space in PRESETS:
        return None
    if not Path(space).exists():
        raise UnknownNameError("space (no preset and no file)", space, PRESETS)
    return load_choices(Path(space))


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


def _languages(*sets: SpeechSet) -> str:
    """All languages that are spoken in the sets, as a recipe names them."""
    return "+".join(sorted({language_of(utterance) for speech in sets for utterance in speech.utterances}))


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


def _check_unseen(confirm: SpeechSet, speech: SpeechSet, heard: Sequence[Utterance], complain: Say) -> None:
    """`heard`: of the speech set, what the search is scored or calibrated on."""
    shared = shared_recordings(confirm.utterances, heard)
    if shared:
        complain(
            f"--confirm {confirm.name} holds {len(shared)} recordings that the search hears in {speech.name} "
            f"({shared[0]}): give speech that it never hears, or leave the option out"
        )


def check_group_budget(config: SearchConfig, evaluator: Evaluator) -> None:
    """Raise InputError where a group budget would judge nothing: every group of the speech set is too small."""
    groups = {group.key: sum(evaluator.words[u] for u in group.utterances) for group in evaluator.groups}
    if config.group_budget is None or max(groups.values(), default=0) >= MIN_WORDS:
        return
    listed = ", ".join(f"{key.label} ({words} words)" for key, words in groups.items()) or "none"
    raise InputError(
        f"--group-budget {config.group_budget}: {evaluator.speech.name} has no group of at least {MIN_WORDS} words; "
        f"its groups: {listed}. Give a larger set, or leave the option out"
    )
