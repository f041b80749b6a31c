"""The training loop: batches, schedule, clipping, held-out loss, early stopping, checkpoints. It knows no model."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn

from common.errors import InputError
from compression.training.batches import Batch, Batches
from compression.training.checkpoint import Checkpoint, Point, Position, copy_of, put_back, trained_parameters
from compression.training.settings import TrainingSettings

Loss = Callable[[Batch], Tensor]
"""The mean loss of a batch, a scalar."""
Clock = Callable[[], float]
OUT_OF_PATIENCE = "held-out loss stopped falling"


@dataclass(frozen=True, kw_only=True)
class Training:
    """What came out. `ended`: why; None when it was interrupted and can go on."""

    points: tuple[Point, ...]
    steps: int
    seconds: float
    ended: str | None

    @property
    def improved(self) -> bool:
        """Whether the weights that were kept have a lower held-out loss than those before the training."""
        return any(point.held_out_loss < self.points[0].held_out_loss for point in self.points[1:])


def learning_rate(progress: float, settings: TrainingSettings) -> float:
    """The rate when the share `progress` of the training is done: up in a line, down to 0 in a cosine or a line."""
    if progress < settings.warmup:
        return settings.learning_rate * progress / settings.warmup
    rest = min(1.0, (progress - settings.warmup) / (1 - settings.warmup))
    falling = (1 + math.cos(math.pi * rest)) / 2 if settings.schedule == "cosine" else 1 - rest
    return settings.learning_rate * falling


class Trainer:
    """Trains what of a module has gradients, until its steps, its time or its patience are used up.

    The module then has the parameters of the end, or those of the lowest held-out loss where patience ended it or the
    end is no better than the beginning.

    `seconds`: of training, earlier sessions included; None is no limit, then the settings must say `steps`. With
    `steps` alone, the same seed and data give the same weights bit for bit on a CPU, with as many interruptions as one
    likes: where time is the limit, the rate follows the clock. `watch` sees each evaluation, `should_stop` is asked
    after each step.
    """

    def __init__(  # noqa: PLR0913 - the parts of a training
        self,
        module: nn.Module,
        loss: Loss,
        batches: Batches,
        settings: TrainingSettings,
        *,
        seconds: float | None,
        clock: Clock,
        checkpoint: Checkpoint | None = None,
        watch: Callable[[Point], None] = lambda _: None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        if seconds is None and settings.steps is None:
            raise ValueError("a training needs an end: seconds or steps")
        self._module, self._loss, self._batches, self._settings = module, loss, batches, settings
        self._seconds, self._clock, self._checkpoint = seconds, clock, checkpoint
        self._watch, self._should_stop = watch, should_stop
        self._parameters = list(trained_parameters(module).values())
        self._compute = self._parameters[0].device
        self._optimiser = torch.optim.AdamW(
            self._parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        self._at = Position()
        self._plan = lru_cache(maxsize=1)(batches.plan)
        self._held_out: list[Batch] = []

    def train(self) -> Training:
        """Go on from the checkpoint if there is one, unless it has ended. The caller's random state is left alone.

        Raises InputError when the loss or its gradient is no longer finite. The checkpoint is then one from before.
        """
        with torch.random.fork_rng(devices=[]), _deterministic(self._compute):
            torch.manual_seed(self._settings.seed)
            restored = self._checkpoint.restore(self._module, self._optimiser) if self._checkpoint else None
            self._at = restored or self._at
            if self._at.ended is None:
                self._run()
        if self._at.ended and not self._ends_well():
            put_back(self._module, self._at.best)
        at = self._at
        return Training(points=tuple(at.points), steps=at.step, seconds=at.seconds, ended=at.ended)

    def _run(self) -> None:
        self._held_out = [batch.to(self._compute) for batch in self._batches.held_out()]
        at, began = self._at, self._clock() - self._at.seconds
        saved_at = at.seconds
        while at.ended is None:
            if not at.points:
                self._evaluate()
            self._step()
            at.seconds = self._clock() - began
            at.ended = self._end()
            if at.ended or at.step % self._settings.evaluate_every == 0:
                self._evaluate()
                at.ended = at.ended or self._out_of_patience()
            stops = self._should_stop() and not at.ended
            if self._checkpoint and (
                stops or at.ended or at.seconds - saved_at > 60 * self._settings.checkpoint_minutes
            ):
                self._checkpoint.save(at, self._module, self._optimiser)
                saved_at = at.seconds
            if stops:
                return

    def _ends_well(self) -> bool:
        """Whether the rate came all the way down, to a lower held-out loss than before the training.

        Then the end is what the schedule was for: differences between evaluations, of a few clips, are mostly chance.
        """
        points = self._at.points
        return self._at.ended != OUT_OF_PATIENCE and points[-1].held_out_loss < points[0].held_out_loss

    def _progress(self) -> float:
        """The share of the training that is done, by steps or by time, whichever is more."""
        shares = [0.0]
        if self._settings.steps:
            shares.append(self._at.step / self._settings.steps)
        if self._seconds is not None:
            shares.append(self._at.seconds / self._seconds)
        return min(1.0, max(shares))

    def _step(self) -> None:
        at = self._at
        plan = self._plan(at.epoch)
        batch = self._batches.load(at.epoch, plan[at.batch]).to(self._compute)
        rate = learning_rate(self._progress(), self._settings)
        for group in self._optimiser.param_groups:
            group["lr"] = rate
        self._optimiser.zero_grad(set_to_none=True)
        loss = self._loss(batch)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self._parameters, self._settings.clip_norm)
        value = float(loss.detach())
        if not math.isfinite(value + float(norm)):
            raise InputError(
                f"training: at step {at.step + 1} the loss is {value:g} and its gradient {float(norm):g}: "
                f"{self._begin_anew}give a lower learning_rate (it is {self._settings.learning_rate:g}), or lower "
                "weights of the losses"
            )
        self._optimiser.step()
        total, count = at.losses
        at.losses = (total + value, count + 1)
        at.step += 1
        at.batch += 1
        if at.batch == len(plan):
            at.epoch, at.batch = at.epoch + 1, 0

    @property
    def _begin_anew(self) -> str:
        """With other settings a checkpoint is in the way."""
        file = self._checkpoint.file if self._checkpoint else None
        return f"delete {file}, and " if file and file.exists() else ""

    def _evaluate(self) -> None:
        at = self._at
        with torch.no_grad():
            losses = [float(self._loss(batch)) * len(batch) for batch in self._held_out]
        held_out_loss = sum(losses) / sum(map(len, self._held_out))
        total, count = at.losses
        point = Point(
            step=at.step,
            seconds=at.seconds,
            learning_rate=learning_rate(self._progress(), self._settings),
            training_loss=total / count if count else None,
            held_out_loss=held_out_loss if math.isfinite(held_out_loss) else math.inf,
        )
        if not at.points or point.held_out_loss < at.best_point.held_out_loss:
            at.best = copy_of(self._module)
        at.points.append(point)
        at.losses = (0.0, 0)
        self._watch(point)

    def _end(self) -> str | None:
        if self._settings.steps and self._at.step >= self._settings.steps:
            return "steps"
        return "time" if self._seconds is not None and self._at.seconds >= self._seconds else None

    def _out_of_patience(self) -> str | None:
        since_best = len(self._at.points) - 1 - self._at.points.index(self._at.best_point)
        return OUT_OF_PATIENCE if since_best >= self._settings.patience else None


@contextmanager
def _deterministic(compute: torch.device) -> Iterator[None]:
    """On CUDA, sums in a fixed order as far as torch has them; a CPU has no other."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(before or compute.type == "cuda", warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
