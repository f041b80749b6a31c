"""What a run is given, loaded and checked before anything is computed: profile, model, speech."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from common.errors import InputError, UnknownNameError
from compression.recipe.recipe import Recipe
from compression.recipe.runtimes import OWN_TARGET, RUNTIMES
from compression.whisper.load import LoadedModel
from devices.profile import DeviceProfile, load_profile
from evaluators.accuracy.evaluator import Evaluator
from evaluators.learning.speech_to_train_on import speech_to_train_on
from evaluators.runtimes.process import check_installed
from evaluators.speech.divergence_clips import drawn
from evaluators.speech.features import CachedFeatures
from evaluators.speech.language import language_of
from evaluators.speech.noisy_speech import with_noise
from evaluators.speech.speech_set import SpeechSet, Utterance, shared_recordings
from search.configuration.config import SearchConfig
from search.limits.group_budget import MIN_WORDS
from search.loading import Say, load_speech, open_model, use_threads
from search.needs.memory import check_fits
from search.space.genes import Value
from search.space.space import PRESETS, load_choices

Choices = Mapping[str, tuple[Value, ...]]


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


def load_all(config: SearchConfig, say: Say, complain: Say) -> Loaded:
    """Everything, checked; `complain` is told of a confirm set that is no good for a new run."""
    use_threads(config.threads)
    profile, own_choices = load_profile(config.device), _own_choices(config.space)
    check_runs_here(target_of(config.runtime, profile))
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


def target_of(runtime: str | None, profile: DeviceProfile) -> str:
    """The target for a device: what was asked for, else what its profile names.

    Raises UnknownNameError for an unknown runtime, InputError for one whose latencies the profile does not know.
    """
    named = profile.runtime.name
    target = runtime or (named if named in RUNTIMES else OWN_TARGET)
    if target not in RUNTIMES:
        raise UnknownNameError("runtime", target, RUNTIMES)
    if runtime and RUNTIMES[runtime].latencies != named:
        alike = [name for name, known in RUNTIMES.items() if known.latencies == named]
        raise InputError(
            f"--runtime {runtime}: the latencies of {profile.name} are those of {named}; "
            f"runtimes that call its kernels: {', '.join(alike) or 'none'}"
        )
    return target


def check_runs_here(target: str) -> None:
    """Raise InputError where the artifacts could not be run to be verified."""
    if target != OWN_TARGET:
        check_installed(target)


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


def _languages(*sets: SpeechSet) -> str:
    """All languages that are spoken in the sets, as a recipe names them."""
    return "+".join(sorted({language_of(utterance) for speech in sets for utterance in speech.utterances}))


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
