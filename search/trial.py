"""A trial: one recipe with its costs, its accuracy or the reason it has none, and its timings."""

import json
from base64 import b64decode, b64encode
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Literal, Self
from zlib import compress, decompress

from pydantic import PlainSerializer, PlainValidator

from compression.recipe.recipe import Recipe
from evaluators.accuracy.divergence import Divergence
from evaluators.accuracy.error_rate import ErrorRate, GroupKey, share_of
from search.record_json import RecordFormat

TrialState = Literal["complete", "stopped", "rejected", "failed"]
"""complete: scored on the whole set. stopped: the evaluation ended early, surely over the budget by
a part of the set, or dominated by divergence and cost, before any transcript.
rejected: its costs alone break a limit. failed: it could not be compressed or scored."""
RecipeText = Annotated[Recipe, PlainSerializer(Recipe.to_json), PlainValidator(Recipe.from_json)]
"""Recipes have a format of their own, which decides their ids."""

UNEVALUATED = "unevaluated"
"""The violation of a trial that keeps every limit on costs and yet was never scored."""


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
    was kept. `speaker`: empty in records from before it was kept. `right_language`: whether the network detects the
    language that is spoken; None where it knows but one, and in records from before that was kept.
    """

    id: str
    insertions: int
    deletions: int
    substitutions: int
    words: int
    ran_on: bool = False
    speaker: str = ""
    right_language: bool | None = None

    @property
    def errors(self) -> int:
        return self.insertions + self.deletions + self.substitutions


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupErrors:
    """The errors of one group of the speech set. `language_accuracy`: as that of a trial, where it was kept."""

    key: GroupKey
    rate: ErrorRate
    utterances: int
    language_accuracy: float | None = None

    @property
    def columns(self) -> dict[str, object]:
        """As JSON names it."""
        rate = self.rate
        return {
            "kind": self.key.kind,
            "name": self.key.name,
            "wer": rate.wer,
            "wer_low": rate.low,
            "wer_high": rate.high,
            "errors": rate.errors,
            "words": rate.words,
            "utterances": self.utterances,
            "language_accuracy": self.language_accuracy,
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Transcripts:
    """Texts, one an utterance, in some 60 % of their length: `packed` is their JSON list, by zlib and base64."""

    packed: str

    @classmethod
    def of(cls, texts: Iterable[str]) -> Self:
        """Those texts, packed."""
        return cls(packed=b64encode(compress(json.dumps(list(texts), ensure_ascii=False).encode(), 9)).decode("ascii"))

    @property
    def texts(self) -> tuple[str, ...]:
        """Unpacked, in the order in which they came."""
        return tuple(json.loads(decompress(b64decode(self.packed))))


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialAccuracy:
    """The pooled errors of the utterances that were scored, and those of each.

    `groups`: the same in each group; `transcripts`: what was heard in each utterance, in their order. Empty and None
    in records from before they were kept.
    """

    rate: ErrorRate
    utterances: tuple[UtteranceErrors, ...]
    groups: tuple[GroupErrors, ...] = ()
    transcripts: Transcripts | None = None

    @property
    def wer(self) -> float:
        return self.rate.wer

    @property
    def language_accuracy(self) -> float | None:
        """Share of the utterances whose language the network detects; None where that was not asked."""
        return share_of(utterance.right_language for utterance in self.utterances)

    @property
    def heard(self) -> dict[str, str] | None:
        """The transcripts by utterance, where they were kept."""
        if self.transcripts is None:
            return None
        names = (utterance.id for utterance in self.utterances)
        return dict(zip(names, self.transcripts.texts, strict=True))


@dataclass(frozen=True, kw_only=True, slots=True)
class Heard:
    """What a recipe made of some utterances: their errors, and what was heard in each, in the same order."""

    utterances: tuple[UtteranceErrors, ...]
    transcripts: Transcripts


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """One row of `trials.csv`, and the truth that the study's storage keeps."""

    number: int
    recipe: RecipeText
    state: TrialState
    objective: float
    costs: TrialCosts
    accuracy: TrialAccuracy | None
    violations: dict[str, float]
    """By limit, how far above it, relative to the limit; <= 0 where kept. A missing key means not known."""
    seconds: float
    note: str = ""
    divergence: Divergence | None = None
    """None where nobody measured it."""

    @property
    def heard(self) -> dict[str, str] | None:
        """What was heard in each utterance of the whole set; None where it was not scored on all, or not kept."""
        return self.accuracy.heard if self.accuracy and self.state == "complete" else None

    @property
    def feasible(self) -> bool:
        """Scored on the whole set and within every limit."""
        return self.state == "complete" and all(violation <= 0 for violation in self.violations.values())

    def to_json(self) -> str:
        """As the run keeps it."""
        return _FORMAT.write(self)

    @classmethod
    def from_json(cls, text: str) -> "Trial":
        """As it was kept, by this version or an older one. Raises InputError when it is damaged."""
        return _FORMAT.read(text)


_FORMAT = RecordFormat(Trial, "trial")
