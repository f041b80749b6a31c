"""The loop on a network of a few weights, with a clock of its own."""

import math
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from random import Random

import pytest
import torch
from torch import Tensor, nn

from common.errors import InputError
from compression.training.batches import Batch
from compression.training.checkpoint import Checkpoint, Point, Position
from compression.training.settings import TrainingSettings
from compression.training.trainer import OUT_OF_PATIENCE, Trainer, learning_rate
from tests.compression.training.data import RandomBatches
from tests.full_disk import files_of_at_most

SETTINGS = TrainingSettings(steps=24, evaluate_every=4, learning_rate=0.05, patience=100)


class Toy(nn.Module):
    """Learns a linear map of a clip's mean frame; drops out at random, which a resumption must repeat."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2))
        self.frozen = nn.Parameter(torch.ones(1), requires_grad=False)

    def loss(self, batch: Batch) -> Tensor:
        seen = nn.functional.dropout(batch.mel.mean(-1), 0.2, training=torch.is_grad_enabled())
        wanted = batch.mel.mean(-1).sum(-1)
        return (seen @ self.weight * self.frozen - wanted).square().mean()


def trainer(
    module: Toy,
    settings: TrainingSettings = SETTINGS,
    *,
    batches: RandomBatches | None = None,
    file: Path | None = None,
    seconds: float | None = None,
    identity: str = "toy",
    loss: Callable[[Batch], Tensor] | None = None,
    watch: Callable[[Point], None] = lambda _: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Trainer:
    ticks = count()
    return Trainer(
        module,
        loss or module.loss,
        batches or RandomBatches(n_mels=2),
        settings,
        seconds=seconds,
        clock=lambda: float(next(ticks)),
        checkpoint=Checkpoint(file=file, identity=identity) if file else None,
        watch=watch,
        should_stop=should_stop,
    )


@pytest.mark.parametrize("stops", [[1], [7], [4, 5, 12], [23]])
def test_a_training_that_was_interrupted_gives_the_same_weights_bit_for_bit(tmp_path: Path, stops: list[int]) -> None:
    whole = Toy()
    uninterrupted = trainer(whole).train()
    for stop in stops:
        steps = count(1)
        before = stops[stops.index(stop) - 1] if stop != stops[0] else 0
        halves = Toy()
        stopped = trainer(
            halves,
            file=tmp_path / "checkpoint",
            should_stop=lambda steps=steps, left=stop - before: next(steps) == left,  # type: ignore[misc]
        ).train()
        assert stopped.ended is None
        assert stopped.steps == stop
    resumed = Toy()
    done = trainer(resumed, file=tmp_path / "checkpoint").train()
    assert torch.equal(resumed.weight, whole.weight)
    assert not torch.equal(resumed.weight, Toy().weight)
    assert [p.held_out_loss for p in done.points] == [p.held_out_loss for p in uninterrupted.points]
    assert [p.training_loss for p in done.points] == [p.training_loss for p in uninterrupted.points]
    assert done.ended == uninterrupted.ended == "steps"


def test_another_seed_gives_other_weights() -> None:
    first, second = Toy(), Toy()
    trainer(first).train()
    trainer(second, SETTINGS.model_copy(update={"seed": 1})).train()
    assert not torch.equal(first.weight, second.weight)


def test_the_random_state_of_the_caller_is_left_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    trainer(Toy()).train()
    assert torch.equal(torch.rand(3), expected)


def test_only_parameters_with_gradients_change_and_the_held_out_loss_falls() -> None:
    module = Toy()
    points = trainer(module, SETTINGS.model_copy(update={"steps": 200})).train().points
    assert points[0].step == 0
    assert points[0].training_loss is None
    assert points[-1].step == 200
    assert float(module.frozen) == 1
    assert min(p.held_out_loss for p in points) < 0.5 * points[0].held_out_loss


def test_early_stopping_keeps_the_weights_of_the_best_evaluation() -> None:
    module = Toy()
    held_out = iter([5.0, 3.0, 2.0, 2.5, 4.0, 3.0, 1.0])
    seen: list[Tensor] = []

    def loss(batch: Batch) -> Tensor:
        return module.loss(batch) if torch.is_grad_enabled() else torch.tensor(next(held_out))

    settings = SETTINGS.model_copy(update={"patience": 3, "steps": 1000})
    done = trainer(module, settings, loss=loss, watch=lambda _: seen.append(module.weight.detach().clone())).train()
    assert done.ended == "held-out loss stopped falling"
    assert [point.held_out_loss for point in done.points] == [5.0, 3.0, 2.0, 2.5, 4.0, 3.0]
    assert torch.equal(module.weight, seen[2])


@pytest.mark.parametrize(("held_out", "kept"), [([5.0, 2.0, 3.0], 2), ([5.0, 2.0, 6.0], 1), ([5.0, 6.0, 7.0], 0)])
def test_the_end_is_kept_where_it_is_better_than_the_beginning(held_out: list[float], kept: int) -> None:
    module, losses = Toy(), iter(held_out)
    seen: list[Tensor] = []

    def loss(batch: Batch) -> Tensor:
        return module.loss(batch) if torch.is_grad_enabled() else torch.tensor(next(losses))

    settings = SETTINGS.model_copy(update={"steps": 2, "evaluate_every": 1, "warmup": 0.0})
    done = trainer(module, settings, loss=loss, watch=lambda _: seen.append(module.weight.detach().clone())).train()
    assert done.ended == "steps"
    assert torch.equal(module.weight, seen[kept])
    assert len({tuple(weights.flatten().tolist()) for weights in seen}) == 3


def test_losses_that_are_not_finite_never_count_as_the_best() -> None:
    module = Toy()
    before = module.weight.detach().clone()
    held_out = iter([5.0, math.nan, math.inf, math.nan])

    def loss(batch: Batch) -> Tensor:
        return module.loss(batch) if torch.is_grad_enabled() else torch.tensor(next(held_out))

    trainer(module, SETTINGS.model_copy(update={"patience": 3}), loss=loss).train()
    assert torch.equal(module.weight, before)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_a_training_that_runs_away_ends_in_one_line_and_its_weights_stay_finite(
    tmp_path: Path, value: float, what: str
) -> None:
    module, steps, seen = Toy(), count(1), []

    def loss(batch: Batch) -> Tensor:
        if not torch.is_grad_enabled() or next(steps) < 6:
            return module.loss(batch)
        seen.append(module.weight.detach().clone())
        if what == "loss":
            return module.loss(batch) * value
        module.weight.register_hook(lambda gradient: gradient * value)
        return module.loss(batch)

    settings = SETTINGS.model_copy(update={"checkpoint_minutes": 3 / 60})
    with pytest.raises(InputError, match=r"training: at step 6 .*lower learning_rate \(it is 0.05\)") as caught:
        trainer(module, settings, file=tmp_path / "c", loss=loss).train()
    assert "\n" not in str(caught.value)
    assert torch.equal(module.weight, seen[0])
    kept = Toy()
    trainer(kept, settings, file=tmp_path / "c", should_stop=lambda: True).train()
    assert kept.weight.isfinite().all()


def test_time_ends_a_training_and_earlier_sessions_count(tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"steps": None})
    steps = count(1)
    first = trainer(Toy(), settings, file=tmp_path / "c", seconds=40.0, should_stop=lambda: next(steps) == 10).train()
    assert first.ended is None
    second = trainer(Toy(), settings, file=tmp_path / "c", seconds=40.0).train()
    assert second.ended == "time"
    assert first.seconds < 40 <= second.seconds < 45
    assert second.points[-1].learning_rate == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    ("settings", "seconds", "ended"),
    [
        (SETTINGS, None, "steps"),
        (SETTINGS.model_copy(update={"steps": None}), 30.0, "time"),
        (SETTINGS.model_copy(update={"learning_rate": 1.0, "patience": 2, "steps": 1000}), None, OUT_OF_PATIENCE),
    ],
)
def test_a_finished_training_is_not_trained_further(
    tmp_path: Path, settings: TrainingSettings, seconds: float | None, ended: str
) -> None:
    """As when the command is given again after a crash between its end and the trial's record."""

    def refuse(_: Batch) -> Tensor:
        raise AssertionError("it was trained or evaluated again")

    first, second = Toy(), Toy()
    done = trainer(first, settings, file=tmp_path / "c", seconds=seconds).train()
    again = trainer(second, settings, file=tmp_path / "c", seconds=seconds, loss=refuse).train()
    assert done.ended == ended
    assert again == done
    assert torch.equal(first.weight, second.weight)
    assert not torch.equal(first.weight, Toy().weight)
    stands = f"Training has ended at step {done.steps}, {done.seconds / 60:.1f} minutes ({ended})"
    assert Checkpoint(file=tmp_path / "c", identity="toy").check() == stands


def test_a_training_needs_an_end() -> None:
    with pytest.raises(ValueError, match="needs an end"):
        trainer(Toy(), SETTINGS.model_copy(update={"steps": None}))


def test_gradients_are_clipped() -> None:
    """Adam does not care for a gradient's size, so the clipped norm itself is looked at, in the last step."""
    module = Toy()
    trainer(module, SETTINGS.model_copy(update={"clip_norm": 1e-3, "steps": 1})).train()
    assert module.weight.grad is not None
    assert float(module.weight.grad.norm()) == pytest.approx(1e-3, rel=1e-3)


def test_checkpoints_of_another_training_and_broken_ones_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "c"
    trainer(Toy(), file=file).train()
    with pytest.raises(InputError, match="other settings or speech"):
        trainer(Toy(), file=file, identity="another").train()
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(InputError, match="is damaged: delete it"):
        trainer(Toy(), file=file).train()


def test_a_checkpoint_with_any_byte_changed_is_refused_or_none_the_worse(tmp_path: Path) -> None:
    file, draw = tmp_path / "c", Random(0)
    trained = Toy()
    trainer(trained, file=file).train()
    whole, refused = file.read_bytes(), 0
    for _ in range(300):
        place = draw.randrange(len(whole))
        other = draw.choice([byte for byte in range(256) if byte != whole[place]])
        file.write_bytes(whole[:place] + bytes([other]) + whole[place + 1 :])
        module = Toy()
        try:
            Checkpoint(file=file, identity="toy").restore(module, torch.optim.AdamW([module.weight]))
        except InputError as error:
            assert str(error) == f"{file} is damaged: delete it to train anew"  # noqa: PT017 - which of the two is chance
            refused += 1
        else:
            assert torch.equal(module.weight, trained.weight)
    assert refused > 200  # the others fall between the parts


def test_what_a_killed_process_left_of_a_checkpoint_is_removed(tmp_path: Path) -> None:
    left, others = tmp_path / ".c.k3_9ab2d", {tmp_path / "c", tmp_path / ".d.k3_9ab2d", tmp_path / "c.old"}
    for file in others - {tmp_path / "c"}:
        file.write_bytes(b"another's")
    left.write_bytes(b"half")
    trainer(Toy(), file=tmp_path / "c", should_stop=lambda: True).train()  # saves
    assert set(tmp_path.iterdir()) == others
    left.write_bytes(b"half")
    Checkpoint(file=tmp_path / "c", identity="toy").restore(module := Toy(), torch.optim.AdamW([module.weight]))
    assert set(tmp_path.iterdir()) == others


def test_where_a_training_goes_on_is_said(tmp_path: Path) -> None:
    checkpoint = Checkpoint(file=tmp_path / "c", identity="toy")
    assert checkpoint.check() is None
    steps = count(1)
    stopped = trainer(Toy(), file=tmp_path / "c", should_stop=lambda: next(steps) == 18).train()
    assert checkpoint.check() == f"Going on from step 18, {stopped.seconds / 60:.1f} minutes"


def test_a_checkpoint_that_finds_no_room_leaves_the_old_one(tmp_path: Path) -> None:
    checkpoint = Checkpoint(file=tmp_path / "c", identity="toy")
    module = nn.Linear(200, 200)
    optimiser = torch.optim.AdamW(module.parameters())
    checkpoint.save(Position(), module, optimiser)
    whole = checkpoint.file.read_bytes()
    for size in range(0, len(whole), len(whole) // 16):
        with files_of_at_most(size), pytest.raises(OSError, match="File too large"):
            checkpoint.save(Position(step=1), module, optimiser)
    assert checkpoint.file.read_bytes() == whole
    assert list(tmp_path.iterdir()) == [checkpoint.file]


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_the_rate_rises_in_a_line_and_falls_to_zero(schedule: str) -> None:
    settings = TrainingSettings.read(None, schedule=schedule, warmup=0.1, learning_rate=1.0)
    assert learning_rate(0.0, settings) == 0
    assert learning_rate(0.05, settings) == pytest.approx(0.5)
    assert learning_rate(0.1, settings) == pytest.approx(1)
    assert learning_rate(0.55, settings) == pytest.approx(0.5)  # half way down, either way
    assert learning_rate(1.0, settings) == pytest.approx(0)
    quarter = {"cosine": (1 + math.cos(math.pi / 4)) / 2, "linear": 0.75}
    assert learning_rate(0.325, settings) == pytest.approx(quarter[schedule])
    falling = [learning_rate(0.1 + 0.01 * step, settings) for step in range(91)]
    assert falling == sorted(falling, reverse=True)


def test_an_epochs_batches_are_planned_once() -> None:
    planned = []

    class Counted(RandomBatches):
        def plan(self, epoch: int) -> Sequence[tuple[int, ...]]:
            planned.append(epoch)
            return super().plan(epoch)

    module, expected = Toy(), Toy()
    trainer(module, batches=Counted(n_mels=2)).train()
    trainer(expected).train()
    assert planned == list(range(12))  # 24 steps, two batches an epoch
    assert torch.equal(module.weight, expected.weight)
