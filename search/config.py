"""The configuration of a run: command-line flags over a TOML file over defaults."""

import os
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from common.errors import InputError
from evaluators.accuracy.normaliser_names import NormaliserChoice
from evaluators.speech.noisy_speech import Mixing
from search.limits.budget import CostLimits, Objective, WerBudget
from search.limits.group_budget import group_wer_budget

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
SamplerName = Literal["tpe", "nsga2", "random"]

PATH_KEYS = frozenset({"data", "confirm", "calibration", "model", "device", "space", "noise"})
"""Keys that hold a path or a name. In a file, a path is relative to that file's folder; what is no path is a name."""


class SearchConfig(BaseModel):
    """Everything that a run depends on; the keys are those of `--config FILE.toml`.

    `hours` is the whole run's time, set-up and confirmation included. `trials` counts scored trials: complete,
    stopped or failed. `latency_confidence`: the probability with which limits on time must hold; 0.5 is the median.
    `noise` is mixed into the search's and the confirm set's speech at `snr_db`, such as `20,10,clean`.
    Costs refer to one utterance of `reference_seconds` of speech and `reference_tokens` tokens.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    device: str
    data: Path = Path("sample")
    wer_budget: str = "+10%"
    group_budget: str | None = None
    confirm: Path | None = None
    calibration: Path | None = None
    calibration_utterances: Annotated[int, Field(ge=1)] = 32
    language: str | None = None
    skip_broken: bool = False
    noise: Path | None = None
    normaliser: NormaliserChoice = "whisper"
    snr_db: Annotated[str | None, Field(coerce_numbers_to_str=True)] = None
    space: str = "coarse"
    sampler: SamplerName = "tpe"
    objective: str = "0.5,0.5"
    hours: Positive | None = None
    trials: Annotated[int, Field(ge=1)] | None = None
    seed: Annotated[int, Field(ge=0)] = 0
    max_size_mb: Positive | None = None
    max_latency_ms: Positive | None = None
    max_rtf: Positive | None = None
    max_occupancy: Positive | None = None
    latency_confidence: Annotated[float, Field(gt=0, lt=1)] = 0.5
    max_memory_mb: Positive | None = None
    reference_seconds: Annotated[float, Field(gt=0, le=30)] = 10.0
    reference_tokens: Annotated[int, Field(ge=1, le=220)] = 30
    threads: Annotated[int, Field(ge=1)] | None = None

    @classmethod
    def build(cls, file: Path | None, flags: dict[str, Any]) -> Self:
        """Flags (those that are not None) over the file's keys over the defaults.

        Raises InputError naming the key and what is wrong with it.
        """
        values = _read(file) if file else {}
        values |= {key: value for key, value in flags.items() if value is not None}
        try:
            config = cls(**values)
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(str(part) for part in first["loc"])
            given = "" if first["type"] == "missing" else f", but got {first['input']!r}"
            flag = f"--{key.replace('_', '-')}"
            raise InputError(f"{flag} ({key} in a configuration file): {first['msg'].lower()}{given}") from error
        if config.hours is None and config.trials is None:
            raise InputError("a run needs an end: give --hours, --trials or both")
        _ = (config.parsed_wer_budget, config.parsed_group_budget, config.parsed_objective, config.mixing)
        return config

    @property
    def parsed_wer_budget(self) -> WerBudget:
        return WerBudget.parse(self.wer_budget)

    @property
    def parsed_group_budget(self) -> WerBudget | None:
        return None if self.group_budget is None else group_wer_budget(self.group_budget)

    @property
    def mixing(self) -> Mixing | None:
        return Mixing.parse(self.noise, self.snr_db)

    @property
    def parsed_objective(self) -> Objective:
        return Objective.parse(self.objective)

    def cost_limits(self, ram_available_mb: float) -> CostLimits:
        """The limits that were asked for; memory is at most what the device has."""
        memory = min(ram_available_mb, self.max_memory_mb or ram_available_mb)
        return CostLimits(
            max_memory_mb=memory,
            max_size_mb=self.max_size_mb,
            max_latency_ms=self.max_latency_ms,
            max_rtf=self.max_rtf,
            max_occupancy=self.max_occupancy,
            latency_confidence=self.latency_confidence,
        )

    def to_toml(self, folder: Path) -> str:
        """As `config.toml` of a run's folder; paths become relative to it."""
        values = self.model_dump(mode="json", exclude_none=True)
        for key in PATH_KEYS & values.keys():
            if Path(values[key]).exists():
                values[key] = Path(os.path.relpath(values[key], folder)).as_posix()
        return tomli_w.dumps(values)


def _read(file: Path) -> dict[str, Any]:
    try:
        values = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"configuration {file}: cannot be read ({error})") from error
    for key in PATH_KEYS & values.keys():
        if isinstance(values[key], str) and (beside := file.parent / values[key]).exists():
            values[key] = os.path.normpath(beside)
    return values
