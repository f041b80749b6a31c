"""What a training needs to go on as if it had never stopped."""

import glob
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from zipfile import ZIP_STORED, BadZipFile, ZipFile

import torch
from torch import Tensor, nn

from common.errors import InputError
from common.files import whole_file
from compression.whisper.torch_files import TORCH_LOAD_ERRORS, save_tensors


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """One evaluation, after so many steps and seconds of training. `training_loss`: since the last; None at first."""

    step: int
    seconds: float
    learning_rate: float
    training_loss: float | None
    held_out_loss: float


@dataclass(kw_only=True)
class Position:
    """Where a training stands. `batch`: of the epoch, the next one. `losses`: sum and number since the last evaluation.

    `best`: parameters at the lowest held-out loss. `ended`: why, once it is over.
    """

    step: int = 0
    epoch: int = 0
    batch: int = 0
    seconds: float = 0.0
    losses: tuple[float, int] = (0.0, 0)
    points: list[Point] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)
    ended: str | None = None

    @property
    def best_point(self) -> Point:
        return min(self.points, key=lambda point: point.held_out_loss)


def trained_parameters(module: nn.Module) -> dict[str, nn.Parameter]:
    """Those with gradients, by name."""
    return {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A file for one training. `identity` says which: settings, data, recipe; another one must not go on from it."""

    file: Path
    identity: str

    def save(self, position: Position, module: nn.Module, optimiser: torch.optim.Optimizer) -> None:
        """Replace the file in one step. Raises OSError (full disk); the old file is then untouched."""
        values = {
            "identity": self.identity,
            "position": vars(position) | {"points": [asdict(point) for point in position.points]},
            "parameters": {name: p.detach() for name, p in trained_parameters(module).items()},
            "optimiser": optimiser.state_dict(),
            "random": torch.get_rng_state(),
        }
        self.file.parent.mkdir(parents=True, exist_ok=True)
        self._remove_halves()
        with whole_file(self.file) as handle:
            save_tensors(values, handle)

    def restore(self, module: nn.Module, optimiser: torch.optim.Optimizer) -> Position | None:
        """Bring everything to where the file stopped; None when there is no file. Raises as `check`."""
        self._remove_halves()
        saved = self._saved()
        if saved is None:
            return None
        put_back(module, saved["parameters"])
        optimiser.load_state_dict(saved["optimiser"])
        torch.set_rng_state(saved["random"])
        values = saved["position"]
        return Position(**{**values, "points": [Point(**point) for point in values["points"]]})

    def check(self) -> str | None:
        """Where the file goes on, in a line for people; None when there is no file.

        Raises InputError when the file is damaged or of another training.
        """
        saved = self._saved()
        if saved is None:
            return None
        step, seconds, ended = (saved["position"][name] for name in ("step", "seconds", "ended"))
        stands = f"step {step}, {seconds / 60:.1f} minutes"
        return f"Training has ended at {stands} ({ended})" if ended else f"Going on from {stands}"

    @property
    def trained_s(self) -> float:
        """Seconds that the file's training took so far; 0 when there is none. Raises as `check`."""
        saved = self._saved()
        return float(saved["position"]["seconds"]) if saved else 0.0

    def _remove_halves(self) -> None:
        """What `whole_file` had not finished when its process was killed."""
        for half in self.file.parent.glob(f".{glob.escape(self.file.name)}.*"):
            half.unlink(missing_ok=True)

    def _saved(self) -> dict[str, Any] | None:
        if not self.file.is_file():
            return None
        try:
            saved = _load(self.file)
            identity = saved["identity"]
        except (OSError, BadZipFile, *TORCH_LOAD_ERRORS) as error:
            raise InputError(f"{self.file} is damaged: delete it to train anew") from error
        if identity != self.identity:
            raise InputError(
                f"{self.file} is of a training with other settings or speech: give the same, or delete it to train anew"
            )
        return saved


def _load(file: Path) -> dict[str, Any]:
    """What torch saved, by the checksums that it writes and does not look at when it reads."""
    with ZipFile(file) as archive:
        is_stored = all(part.compress_type == ZIP_STORED for part in archive.infolist())
        if not is_stored or archive.testzip():
            raise BadZipFile(f"{file}: a part is not what was saved")
    saved: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    return saved


def copy_of(module: nn.Module) -> dict[str, Tensor]:
    """The trained parameters as they are now."""
    return {name: parameter.detach().cpu().clone() for name, parameter in trained_parameters(module).items()}


def put_back(module: nn.Module, values: Mapping[str, Tensor]) -> None:
    """Give the trained parameters the values of an earlier copy."""
    for name, parameter in trained_parameters(module).items():
        parameter.data.copy_(values[name])
