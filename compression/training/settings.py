"""How a network is trained; the keys of `--training FILE.toml`, described in docs/training.md."""

import os
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from common.errors import InputError

Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Part = Literal["auto", "encoder", "decoder", "both"]


class TrainingSettings(BaseModel):
    """Values that were measured or published say so in docs/training.md.

    `part`: what is trained; auto is what the recipe changes. `labels`: the teacher's own transcripts, or the speech
    set's.
    `soft`, `hard`, `encoded`, `hidden`: weights of the losses (see `compression.training.distillation`).
    `warmup`: share of the training in which the rate rises. `steps`: the end at the latest; None leaves it to the time.
    `patience`: evaluations without a better held-out loss before the end. `copies`: versions of each clip, of which
    the first is as recorded and the others are played at a speed within `speeds` and get noise at an SNR within
    `snr_db`, from the audio of `noise`, or white. `window_s`: shortest encoder window of training clips.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    part: Part = "auto"
    labels: Literal["teacher", "reference"] = "teacher"
    temperature: Positive = 2.0
    soft: Weight = 1.0
    hard: Weight = 0.5
    encoded: Weight = 1.0
    hidden: Weight = 0.0
    train_embedding: bool = False
    learning_rate: Positive = 3e-5
    schedule: Literal["cosine", "linear"] = "cosine"
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.05
    weight_decay: Weight = 0.0
    clip_norm: Positive = 1.0
    batch_size: Annotated[int, Field(ge=1)] = 8
    steps: Annotated[int, Field(ge=1)] | None = None
    evaluate_every: Annotated[int, Field(ge=1)] = 50
    patience: Annotated[int, Field(ge=1)] = 10
    held_out: Annotated[float, Field(gt=0, lt=1)] = 0.1
    checkpoint_minutes: Positive = 5.0
    copies: Annotated[int, Field(ge=1)] = 3
    speeds: tuple[Positive, Positive] = (0.9, 1.1)
    snr_db: tuple[float, float] = (20.0, 40.0)
    noise: Path | None = None
    window_s: Annotated[float, Field(ge=1, le=30)] = 15.0
    torch_device: Literal["cpu", "cuda"] = "cpu"
    seed: Annotated[int, Field(ge=0)] = 0

    @classmethod
    def read(cls, file: Path | None, **changes: Any) -> Self:
        """The file's keys, at its top or in its table [training], under `changes` that are not None, over the defaults.

        Raises InputError naming the key and what is wrong with it.
        """
        values = (_table(file) if file else {}) | {k: v for k, v in changes.items() if v is not None}
        try:
            settings = cls(**values)
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(str(part) for part in first["loc"])
            message = f"{key}: {first['msg'].lower()}, but got {first['input']!r}"
            raise InputError(f"training {file or 'settings'}: {message}") from error
        for name in ("speeds", "snr_db"):
            low, high = getattr(settings, name)
            if low > high:
                raise InputError(f"training: {name} must be [lowest, highest], but got [{low:g}, {high:g}]")
        return settings


def _table(file: Path) -> dict[str, Any]:
    try:
        values = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"training {file}: cannot be read ({error})") from error
    values = values.get("training", values)
    if isinstance(values, dict) and isinstance(values.get("noise"), str):
        values["noise"] = os.path.normpath(file.parent / values["noise"])
    if not isinstance(values, dict):
        raise InputError(f"training {file}: [training] must be a table")
    return values
