"""The configuration of a run: command-line flags over a TOML file over defaults."""

from pathlib import Path
from typing import Any, Self

import tomli_w
from pydantic import ValidationError

from common.errors import InputError
from common.parsing import parse_toml
from evaluators.speech.noisy_speech import Mixing
from search.configuration.command_options import complaint
from search.configuration.knobs import EvolutionKnobs, ScreeningKnobs
from search.configuration.name_or_path import NAMES, recorded, settled
from search.configuration.options import SAMPLERS, EngineName, SearchOptions, at_most_half
from search.configuration.study_address import STUDY_NAME, StudyAddress
from search.limits.budget import CostLimits, Objective, WerBudget
from search.limits.group_budget import group_wer_budget

CONCURRENT: tuple[EngineName, ...] = ("evolution", "optuna")
"""Engines of which several proposals may be out at a time."""
RECOVERS_FROM_HOURS = 2.0
"""What a run has at least that trains without being asked to."""
RECOVER_SHARE = 0.4
"""Of a run's time, for training."""
PATIENCE = 600
"""Judged recipes in a row that change nothing, after which a search ends."""


class SearchConfig(SearchOptions):
    """Everything that a run depends on: `SearchOptions`, the keys of `--config FILE.toml`, with what they mean.

    `evolution`, `screening`: tables of the default engine's knobs, without flags. A new run settles them; in a run from
    before they existed they are None, which is their defaults.
    """

    evolution: EvolutionKnobs | None = None
    screening: ScreeningKnobs | None = None

    @classmethod
    def build(cls, file: Path | None, flags: dict[str, Any]) -> Self:
        """Flags (those that are not None) over the file's keys over the defaults.

        Raises InputError naming the key and what is wrong with it.
        """
        values = _read(file) if file else {}
        values |= _settled({key: value for key, value in flags.items() if value is not None}, Path())
        try:
            config = cls(**values)
        except ValidationError as error:
            key = ".".join(str(part) for part in error.errors()[0]["loc"])
            flag = f"--{key.replace('_', '-')}"
            place = key if "." in key else f"{flag} ({key} in a configuration file)"
            raise InputError(f"{place}: {complaint(error)}") from error
        if config.hours is None and config.trials is None:
            raise InputError("a run needs an end: give --hours, --trials or both")
        if config.sampler not in SAMPLERS[config.engine]:
            raise InputError(
                f"--sampler {config.sampler}: --engine {config.engine} has {', '.join(SAMPLERS[config.engine])}"
            )
        if config.unlabelled and config.engine != "evolution":
            raise InputError(
                f"--unlabelled: the engine {config.engine} does not judge by divergence; use evolution, or leave it out"
            )
        if (config.evolution or config.screening) and config.engine != "evolution":
            raise InputError(f"[evolution], [screening]: the engine {config.engine} has none of these; leave them out")
        config._check_recovery()
        config._check_workers()
        _ = (config.parsed_wer_budget, config.parsed_group_budget, config.parsed_objective, config.mixing)
        return config

    def _check_recovery(self) -> None:
        if self.patience is not None and self.engine != "evolution":
            raise InputError(
                f"--patience: the engine {self.engine} has no front of divergence that could stand still; "
                "use evolution, or leave it out"
            )
        if self.recover == "auto" and self.engine != "evolution":
            raise InputError(
                f"--recover auto: the engine {self.engine} does not judge by divergence; use evolution, or leave it out"
            )
        if self.recover == "auto" and self.hours is None:
            raise InputError("--recover auto: training is given a share of the run's time: give --hours too")
        if self.recover == "auto" and not self._has_other_speech:
            raise InputError(
                "--recover auto: there is no speech to train on, since calibration hears the search's: "
                "give --calibration or --unlabelled"
            )

    def _check_workers(self) -> None:
        """Raise InputError where there is nobody for workers to work for, or a study without its storage."""
        if self.has_workers and self.engine not in CONCURRENT:
            raise InputError(
                f"--workers, --storage: the engine {self.engine} tries one recipe at a time; "
                f"use {' or '.join(CONCURRENT)}"
            )
        if self.study and not self.storage:
            raise InputError("--study: names a study in a --storage, which is not given")
        if self.storage:
            StudyAddress.of_storage(self.storage, self.study or STUDY_NAME)

    @property
    def has_workers(self) -> bool:
        """Whether other processes measure, here or elsewhere."""
        return bool(self.workers) or self.storage is not None

    @property
    def local_workers(self) -> int:
        """How many processes of this machine measure; one, unless something else is said, where there is a storage."""
        return (1 if self.storage else 0) if self.workers is None else self.workers

    @property
    def _has_other_speech(self) -> bool:
        """Whether speech was named that the search's WER is not measured on."""
        return self.calibration is not None or self.unlabelled is not None

    @property
    def lacks_speech_to_train_on(self) -> bool:
        """Whether only that is why a run trains nothing."""
        is_long = self.engine == "evolution" and (self.hours or 0.0) >= RECOVERS_FROM_HOURS
        return self.recover is None and is_long and not self._has_other_speech

    def settled(self) -> Self:
        """As a new run begins: what was not said about recovery and standstill follows from the rest."""
        is_evolution, is_long = self.engine == "evolution", (self.hours or 0.0) >= RECOVERS_FROM_HOURS
        recover = self.recover or ("auto" if is_evolution and is_long and self._has_other_speech else "off")
        share = (self.recover_share or RECOVER_SHARE) if recover == "auto" else self.recover_share
        patience = self.patience or (PATIENCE if is_evolution else None)
        knobs = {
            "evolution": self.evolution or (EvolutionKnobs() if is_evolution else None),
            "screening": self.screening or (ScreeningKnobs() if is_evolution else None),
        }
        return self.model_copy(update={"recover": recover, "recover_share": share, "patience": patience, **knobs})

    def fitted_utterances(self, searched: int) -> int:
        """To how many utterances recipes are fitted, where the search set has so many; they may be from there."""
        return self.calibration_utterances if self.calibration else at_most_half(self.calibration_utterances, searched)

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
        for key in NAMES.keys() & values.keys():
            values[key] = recorded(values[key], NAMES[key], folder)
        return tomli_w.dumps(values)


def _read(file: Path) -> dict[str, Any]:
    try:
        values = parse_toml(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"configuration {file}: cannot be read ({error})") from error
    return _settled(values, file.parent)


def _settled(values: dict[str, Any], folder: Path) -> dict[str, Any]:
    """With every name or path as `settled` has it; what is neither text nor a path is for the checks of types."""
    given = {key: str(values[key]) for key in NAMES.keys() & values.keys() if isinstance(values[key], str | Path)}
    return values | {key: settled(value, NAMES[key], folder) for key, value in given.items() if value}
