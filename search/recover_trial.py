"""A trial's recipe made better by training, and scored as a trial of its own."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from torch import Tensor

from common.errors import InputError
from common.files import sha256_of_text, write_text_whole
from compression.recipe.recipe import Recipe
from compression.recipe.recovery_spec import RecoveryMethod
from compression.techniques.trained_weights import save_recovered
from compression.training.checkpoint import Checkpoint, Point
from compression.training.reconstruction import reconstruct
from compression.training.run import Limits, WhisperTraining, recovered_recipe
from compression.training.settings import TrainingSettings
from compression.training.subject import Subject
from compression.training.trainer import Training
from evaluators.accuracy.divergence import Divergence
from evaluators.learning.calibration import calibration_samples
from evaluators.learning.training_speech import TrainingSpeech
from evaluators.speech.features import CachedFeatures
from evaluators.speech.speech_set import SpeechSet, shared_recordings
from search.engines.base import Engine
from search.records.ledger import Ledger
from search.scorer import Scorer
from search.session import Session
from search.trial import Trial

RECONSTRUCTION_UTTERANCES = 64
"""Their residual streams, of both networks, take 150 MB of tiny at 15 s."""
TRAINING_FILE = "training.json"


@dataclass(frozen=True, kw_only=True)
class RecoveryPlan:
    """How a recipe is to be made better, and on which speech."""

    method: RecoveryMethod
    settings: TrainingSettings
    speech: SpeechSet

    def identity(self, recipe: Recipe) -> str:
        """Digest of all that a training depends on but its time."""
        speech = self.speech
        values = [self.method, self.settings.model_dump(mode="json"), speech.digest, speech.languages, recipe.id]
        return sha256_of_text(json.dumps(values))


def effort_of(steps: int, seconds: float) -> str:
    """What a training took, behind what it did."""
    return f": {steps} steps, {seconds / 60:.1f} min"


@dataclass(frozen=True, kw_only=True)
class Recovered:
    """`weights`: what was trained. `training`: its course; None for a reconstruction, which has none."""

    weights: dict[str, Tensor]
    training: Training | None

    @property
    def failure_reason(self) -> str:
        """Why the weights are still those of before; empty where they are not."""
        if not self.weights:
            return "the time was over before anything was refitted; give more --hours"
        if self.training is None or self.training.improved:
            return ""
        first, *others = (point.held_out_loss for point in self.training.points)
        return (
            f"the held-out loss never fell below that of before ({first:.4f}, at best {min(others):.4f}); try a lower "
            "learning_rate, or other speech"
        )

    @property
    def effort(self) -> str:
        """What it took, for people."""
        training = self.training
        return effort_of(training.steps, training.seconds) if training else ""


@dataclass(frozen=True, kw_only=True)
class Listener:
    """Who is told what happens: `say` lines, `watch` evaluations of a training."""

    say: Callable[[str], None]
    watch: Callable[[Point], None]


def progress_line(point: Point) -> str:
    """One evaluation of a training."""
    trained = "-" if point.training_loss is None else f"{point.training_loss:.4f}"
    return (
        f"step {point.step:>6}  {point.seconds / 60:6.1f} min  rate {point.learning_rate:.1e}  "
        f"loss {trained:>7}, held out {point.held_out_loss:.4f}"
    )


def check_disjoint(training: SpeechSet, session: Session) -> None:
    """Raise InputError when speech that the run is scored on would be trained on."""
    for evaluator in filter(None, (session.evaluator, session.confirm)):
        shared = shared_recordings(evaluator.speech.utterances, training.utterances)
        if shared:
            raise InputError(
                f"speech set {training.name} holds {len(shared)} recordings that this run is scored on "
                f"({shared[0]} of {evaluator.speech.name}): train on other speech (--speech MANIFEST)"
            )


def improve(  # noqa: PLR0913, PLR0917 - a training
    subject: Subject,
    recovery: RecoveryPlan,
    limits: Limits,
    checkpoint_file: Path,
    listener: Listener,
    features: CachedFeatures | None = None,
) -> Recovered | None:
    """Better weights for a recipe; None when it was interrupted: then the checkpoint holds where it stopped."""
    features = features or CachedFeatures(n_mels=subject.model.dimensions.n_mels)
    checkpoint = Checkpoint(file=checkpoint_file, identity=recovery.identity(subject.recipe))
    if goes_on := checkpoint.check():
        listener.say(goes_on)
    subject.check_losses()
    listening = f"Listening to {recovery.speech.name}: the original's transcripts are what is learned"
    if recovery.method == "reconstruct":
        listener.say(listening)
        return _reconstructed(subject, recovery, limits, features, listener)
    training = WhisperTraining(subject, recovery.method, recovery.settings)
    listener.say(listening)
    speech = TrainingSpeech(subject.model, recovery.speech, recovery.settings, features)
    listener.say("Training; the first epochs are slow, since the original's answers are worked out in them")
    done = training.run(speech, limits, checkpoint=checkpoint, watch=listener.watch)
    return Recovered(weights=training.weights(), training=done) if done.ended else None


def _reconstructed(
    subject: Subject, recovery: RecoveryPlan, limits: Limits, features: CachedFeatures, listener: Listener
) -> Recovered | None:
    samples = calibration_samples(subject.model, recovery.speech.utterances[:RECONSTRUCTION_UTTERANCES], features)
    started = limits.clock()

    def go_on(name: str) -> bool:
        if limits.seconds is not None and limits.clock() - started >= limits.seconds:
            listener.say(f"The time is over: {name} and what comes after it stay as they were")
            return False
        listener.say(f"Refitting {name}")
        return not limits.should_stop()

    weights = reconstruct(subject, samples, go_on=go_on)
    return None if limits.should_stop() else Recovered(weights=weights, training=None)


def subject_of(session: Session, recipe: Recipe) -> Subject:
    """A recipe of a run as something to be trained."""
    return Subject(
        model=session.model, recipe=recipe, calibration=session.calibration, recovered=session.weights(recipe)
    )


def keep_recovered(session: Session, recipe: Recipe, recovery: RecoveryPlan, recovered: Recovered) -> Recipe:
    """Keep what was made of a recipe in the run's folder; the recipe that names it."""
    if session.recovered is None:
        raise InputError("a recovery needs a run's folder")
    better, weights = recovered_recipe(subject_of(session, recipe), recovery.method, recovered.weights)
    folder = session.recovered / better.id
    save_recovered(folder, better, weights)
    write_text_whole(folder / TRAINING_FILE, json.dumps(course(recipe, recovery, recovered), indent=1) + "\n")
    return better


def origin(number: int, method: RecoveryMethod, effort: str) -> str:
    """The note of a recovered trial: of which trial, and how."""
    return f"trial {number} recovered by {method}{effort}"


def add_scored(  # noqa: PLR0913, PLR0917 - a trial, and the run that it belongs to
    engine: Engine, ledger: Ledger, scorer: Scorer, better: Recipe, note: str, divergence: Divergence | None = None
) -> Trial:
    """Score a recovered recipe and record its trial. `divergence`: where it was measured before."""
    trials = ledger.trials
    scored = scorer.score(len(trials), better, scorer.baseline(trials[0]), divergence)
    return add_noted(engine, ledger, scored, note)


def add_noted(engine: Engine, ledger: Ledger, trial: Trial, note: str) -> Trial:
    """Record a trial, with the note behind what it says itself."""
    added = engine.add(replace(trial, note="; ".join(filter(None, (trial.note, note)))))
    ledger.add(added)
    return added


def add_trial(  # noqa: PLR0913, PLR0917 - a recovery, and the run that it belongs to
    session: Session,
    engine: Engine,
    ledger: Ledger,
    source: Trial,
    recovery: RecoveryPlan,
    recovered: Recovered,
    say: Callable[[str], None],
) -> Trial:
    """Keep what was made of the source's recipe in the run's folder, score it, and record the trial.

    A recovery that is known already, weight for weight, is not recorded again; its weights are.
    """
    better = keep_recovered(session, source.recipe, recovery, recovered)
    known = ledger.find(better)
    if known:
        say(f"The run knew this result as trial {known.number}: its weights are written again")
        return known
    say("Scoring the recovered recipe")
    note = origin(source.number, recovery.method, recovered.effort)
    return add_scored(engine, ledger, Scorer(session), better, note)


def course(recipe: Recipe, recovery: RecoveryPlan, recovered: Recovered) -> dict[str, object]:
    """How the weights came to be, for people and plots."""
    training = recovered.training
    return {
        "method": recovery.method,
        "from_recipe_id": recipe.id,
        "speech": recovery.speech.name,
        "speech_sha256": recovery.speech.digest,
        "settings": recovery.settings.model_dump(mode="json"),
        "training": asdict(training) if training else None,
    }
