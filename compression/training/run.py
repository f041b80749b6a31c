"""From a recipe to a better one: distillation and quantisation-aware training of a compressed Whisper."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import Tensor

from common.errors import InputError
from compression.recipe.recipe import Recipe
from compression.recipe.recovery_spec import ROUNDED_IN_TRAINING, Recovery, RecoveryMethod
from compression.techniques.trained_weights import Weights, parameter_of, weights_digest
from compression.training.batches import Batches
from compression.training.checkpoint import Checkpoint, Point, trained_parameters
from compression.training.distillation import Distillation, Matching, Teacher
from compression.training.settings import TrainingSettings
from compression.training.spelling import SpelledBatches, Spelling
from compression.training.subject import Subject
from compression.training.trainer import Clock, Trainer, Training
from compression.training.whisper_student import WhisperStudent, absorbed_layers, changed_part


@dataclass(frozen=True, kw_only=True)
class Limits:
    """`seconds`: of training, earlier sessions included. `should_stop` is asked after every step."""

    seconds: float | None
    clock: Clock
    should_stop: Callable[[], bool]


class WhisperTraining:
    """One training of one recipe, by `distill` or `qat`.

    Raises InputError when the method does not suit the recipe or the settings leave no loss.
    """

    def __init__(self, subject: Subject, method: RecoveryMethod, settings: TrainingSettings) -> None:
        model, recipe = subject.model, subject.recipe
        if method in ROUNDED_IN_TRAINING and not recipe.is_quantised:
            raise InputError(f"recipe {recipe.id} has no integer weights to train for; distill is for what was removed")
        self._settings = settings
        original = Recipe.original(model.dimensions, stored_bits=model.stored_bits)
        part = changed_part(recipe, original, settings.part)
        _check_losses(settings, part)
        self.student = WhisperStudent(subject, part, method, settings)
        if not trained_parameters(self.student):
            raise InputError(f"recipe {recipe.id} has no integer weights in its {part}, and so no scales to train")
        if self.student.is_original:
            raise InputError(f"recipe {recipe.id} only rounds weights, which distillation does not see: --method qat")
        matching = Matching(
            encoder=tuple(enumerate(absorbed_layers(recipe.encoder))) if part != "decoder" else (),
            decoder=tuple(enumerate(absorbed_layers(recipe.decoder))) if part != "encoder" else (),
        )
        encoded = self.student.encoded if self.student.has_original_encoder else None
        self._spelling = Spelling(self.student.network, self.student.vocabulary) if recipe.vocabulary else None
        self._loss = Distillation(
            self.student,
            Teacher(model.network, part, matching, settings, encoded, self._spelling),
            settings,
            matching=matching,
        )

    def run(
        self, batches: Batches, limits: Limits, *, checkpoint: Checkpoint | None, watch: Callable[[Point], None]
    ) -> Training:
        """Train until an end; see `Trainer` for which weights the student then has."""
        trainer = Trainer(
            self._loss,
            self._loss,
            SpelledBatches(batches=batches, spelling=self._spelling) if self._spelling else batches,
            self._settings,
            seconds=limits.seconds,
            clock=limits.clock,
            checkpoint=checkpoint,
            watch=watch,
            should_stop=limits.should_stop,
        )
        return trainer.train()

    def weights(self) -> dict[str, Tensor]:
        """The student's parameters before rounding, as `compression.techniques.trained_weights` keeps them."""
        return self.student.weights()


def _check_losses(settings: TrainingSettings, part: str) -> None:
    decoder = settings.soft + settings.hard if part != "encoder" else 0.0
    encoder = settings.encoded if part != "decoder" else 0.0
    if not decoder + encoder + settings.hidden:
        trained = "encoder and decoder" if part == "both" else part
        raise InputError(f"training: every loss of the {trained} has the weight 0")


def recovered_recipe(subject: Subject, method: RecoveryMethod, weights: Weights) -> tuple[Recipe, dict[str, Tensor]]:
    """The recipe that names the new weights, and all that belong to it: those that were not trained now as before."""
    before = {name: values for name, values in (subject.recovered or {}).items() if parameter_of(name) not in weights}
    complete = {**before, **weights}
    nearest = subject.nearest_after(method, {name.partition(".")[0] for name in weights})
    recovery = Recovery(method=method, weights_sha256=weights_digest(complete), nearest=nearest)
    return replace(subject.recipe, recovery=recovery), complete
