"""A trial: one recipe with its costs, its accuracy or the reason it has none, and its timings."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

from compression.recipe.recipe import Recipe

TrialState = Literal["complete", "stopped", "rejected", "failed"]
"""complete: scored on the whole set. stopped: the evaluation ended early, surely over the budget or dominated.
rejected: its costs alone break a limit. failed: it could not be compressed or scored."""


UNEVALUATED = "unevaluated"
"""The violation of a trial that keeps every limit on costs and yet was never scored."""
ACCURACY = ("wer", "wer_low", "wer_high", "insertions", "deletions", "substitutions", "words")
"""What every record of an accuracy holds, as `evaluators.accuracy.word_errors.Accuracy` calls it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialCosts:
    """What the recipe costs on the device for the reference utterance, in the CSV's units (MB = 10^6 bytes).

    `latency_ms` is a median, with its 90 % interval; `source` says where latencies come from; `occupancy`: see
    `devices.energy.cpu_occupancy`. Times and energies are None where the device cannot execute the recipe, energies
    also where nobody knows the device's power, the last two also in records from before they were kept.
    """

    size_mb: float
    flops_g: float
    latency_ms: float | None
    latency_low_ms: float | None
    latency_high_ms: float | None
    rtf: float | None
    peak_memory_mb: float
    energy_mj: float | None
    parameters_m: float
    source: Literal["measured", "estimated"]
    energy_above_idle_mj: float | None = None
    occupancy: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class UtteranceErrors:
    """Errors of one utterance: insertions, deletions, substitutions against its number of words.

    `ran_on`: whether its transcript ended in a loop or at the limit of its length; False in records from before that
    was kept.
    """

    id: str
    insertions: int
    deletions: int
    substitutions: int
    words: int
    ran_on: bool = False

    @property
    def errors(self) -> int:
        return self.insertions + self.deletions + self.substitutions


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupErrors:
    """WER of one group of the speech set, such as `length` `below 5 s`, with its 95 % interval and counts."""

    kind: str
    name: str
    wer: float
    wer_low: float
    wer_high: float
    errors: int
    words: int
    utterances: int

    @property
    def label(self) -> str:
        return f"{self.kind} {self.name}"


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialAccuracy:
    """Pooled WER (a fraction) with its 95 % interval and counts, over the utterances that were scored.

    `groups`: the same in each group; empty in records from before groups were kept.
    """

    wer: float
    wer_low: float
    wer_high: float
    insertions: int
    deletions: int
    substitutions: int
    words: int
    utterances: tuple[UtteranceErrors, ...]
    groups: tuple[GroupErrors, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """One row of `trials.csv`, and the truth that the study's storage keeps."""

    number: int
    recipe: Recipe
    state: TrialState
    objective: float
    costs: TrialCosts
    accuracy: TrialAccuracy | None
    violations: dict[str, float]
    """By limit, how far above it, relative to the limit; <= 0 where kept. A missing key means not known."""
    seconds: float
    note: str = ""

    @property
    def feasible(self) -> bool:
        """Scored on the whole set and within every limit."""
        return self.state == "complete" and all(violation <= 0 for violation in self.violations.values())

    def to_json(self) -> str:
        return json.dumps({**asdict(self), "recipe": self.recipe.to_json()}, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Self:
        values = json.loads(text)
        accuracy = values.pop("accuracy")
        if accuracy:
            utterances = tuple(UtteranceErrors(**errors) for errors in accuracy.pop("utterances"))
            groups = read_groups(accuracy.pop("groups", ()))
            accuracy = TrialAccuracy(**accuracy, utterances=utterances, groups=groups)
        return cls(
            recipe=Recipe.from_json(values.pop("recipe")),
            costs=TrialCosts(**values.pop("costs")),
            accuracy=accuracy,
            **values,
        )


def read_groups(values: Iterable[Mapping[str, Any]]) -> tuple[GroupErrors, ...]:
    """The groups that `asdict` made values of."""
    return tuple(GroupErrors(**value) for value in values)
