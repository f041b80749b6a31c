"""How a network is trained; the keys of `--training FILE.toml`, described in docs/training.md."""

import os
import reprlib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from common.errors import InputError, UnknownNameError
from common.parsing import parse_toml

TABLE = "training"
HIGHEST_SEED = 2**63 - 1
"""Torch reads a seed as a signed number of 64 bits."""

Weight = Annotated[float, Field(ge=0, le=1000, allow_inf_nan=False)]
Share = Annotated[float, Field(lt=1, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)]
Speed = Annotated[float, Field(ge=0.5, le=2, allow_inf_nan=False)]
Decibels = Annotated[float, Field(ge=-20, le=100, allow_inf_nan=False)]
"""From noise of a hundred times the speech's power to noise below the steps of 16-bit audio."""
Part = Literal["auto", "encoder", "decoder", "both"]


class TrainingSettings(BaseModel):
    """Values that were measured or published say so in docs/training.md. Types are TOML's, none is converted.

    `part`: what is trained; auto is what the recipe changes. `labels`: the teacher's own transcripts, or the speech
    set's.
    `soft`, `hard`, `encoded`, `hidden`: weights of the losses (see `compression.training.distillation`).
    `warmup`: share of the training in which the rate rises. `steps`: the end at the latest; None leaves it to the time.
    `patience`: evaluations without a better held-out loss before the end. `copies`: versions of each clip, of which
    the first is as recorded and the others are played at a speed within `speeds` and get noise at an SNR within
    `snr_db`, from the audio of `noise`, or white. `window_s`: shortest encoder window of training clips.

    Bounds: AdamW moves a weight by about `learning_rate`, and changes its sign where that times `weight_decay` is above
    1; below the lowest `temperature` one token is left, above the highest all are alike.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    part: Part = "auto"
    labels: Literal["teacher", "reference"] = "teacher"
    temperature: Annotated[float, Field(ge=0.1, le=100, allow_inf_nan=False)] = 2.0
    soft: Weight = 1.0
    hard: Weight = 0.5
    encoded: Weight = 1.0
    hidden: Weight = 0.0
    train_embedding: bool = False
    learning_rate: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] = 3e-5
    schedule: Literal["cosine", "linear"] = "cosine"
    warmup: Annotated[Share, Field(ge=0)] = 0.05
    weight_decay: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.0
    clip_norm: Positive = 1.0
    batch_size: Annotated[int, Field(ge=1, le=1024)] = 8
    steps: Annotated[int, Field(ge=1)] | None = None
    evaluate_every: Annotated[int, Field(ge=1)] = 50
    patience: Annotated[int, Field(ge=1)] = 10
    held_out: Annotated[Share, Field(gt=0)] = 0.1
    checkpoint_minutes: Positive = 5.0
    copies: Annotated[int, Field(ge=1, le=1000)] = 3
    # TOML has arrays and strings, no tuples and paths
    speeds: Annotated[tuple[Speed, Speed], Field(strict=False)] = (0.9, 1.1)
    snr_db: Annotated[tuple[Decibels, Decibels], Field(strict=False)] = (20.0, 40.0)
    noise: Annotated[Path | None, Field(strict=False)] = None
    window_s: Annotated[float, Field(ge=1, le=30, allow_inf_nan=False)] = 15.0
    seed: Annotated[int, Field(ge=0, le=HIGHEST_SEED)] = 0

    @classmethod
    def read(cls, file: Path | None, **changes: Any) -> Self:
        """The file's keys, at its top or in its table [training], under `changes` that are not None, over the defaults.

        Raises InputError naming the key and what is wrong with it, UnknownNameError when there is no such key.
        """
        values = (_table(file) if file else {}) | {k: v for k, v in changes.items() if v is not None}
        place = f"training {file or 'settings'}"
        for key in sorted(values.keys() - cls.model_fields.keys()):
            raise UnknownNameError(f"key of {place}", key, (*cls.model_fields, TABLE))
        try:
            settings = cls(**values)
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(str(part) for part in first["loc"])
            message = f"{key}: {first['msg'].lower()}, but got {reprlib.repr(first['input'])}"
            raise InputError(f"{place}: {message}") from error
        for name in ("speeds", "snr_db"):
            low, high = getattr(settings, name)
            if low > high:
                raise InputError(f"{place}: {name} must be [lowest, highest], but got [{low:g}, {high:g}]")
        if not settings.soft + settings.hard + settings.encoded + settings.hidden:
            raise InputError(f"{place}: soft, hard, encoded and hidden are all 0, so there is nothing to learn")
        return settings


def _table(file: Path) -> dict[str, Any]:
    try:
        values = parse_toml(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:  # no UTF-8, no TOML, or a number of thousands of digits
        raise InputError(f"training {file}: cannot be read ({error})") from error
    table = values.pop(TABLE, None)
    if table is not None:
        if not isinstance(table, dict):
            raise InputError(f"training {file}: [training] must be a table")
        if values:
            raise InputError(f"training {file}: {', '.join(map(repr, values))} beside [training]: put all keys into it")
        values = table
    if values.get("noise") == "":
        raise InputError(f"training {file}: noise is empty: name a folder, manifest or file, or leave the key out")
    if isinstance(values.get("noise"), str):
        values["noise"] = os.path.normpath(file.parent / values["noise"])
    return values
