"""Groups of utterances, such as the short ones or one speaker's, and the word errors in each."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from evaluators.accuracy.error_rate import GroupKey
from evaluators.accuracy.normaliser_names import NormaliserChoice
from evaluators.accuracy.normalisers import normaliser_of
from evaluators.accuracy.word_errors import Accuracy, ErrorCounts, pooled_accuracy
from evaluators.speech.language import language_of
from evaluators.speech.speech_set import CLEAN, Utterance

GroupKind = Literal["language", "speaker", "length", "noise"]

SHORT_S = 5.0
LONG_S = 15.0
MIN_SPEAKER_UTTERANCES = 5
"""A speaker with fewer is no group of their own: in read corpora almost everybody speaks once or twice."""
_SHORT, _MEDIUM, _LONG = f"below {SHORT_S:g} s", f"{SHORT_S:g} to {LONG_S:g} s", f"from {LONG_S:g} s"


@dataclass(frozen=True, kw_only=True)
class Group:
    """Utterances, by id, that have something in common. `normaliser`: what their texts go through."""

    key: GroupKey
    utterances: frozenset[str]
    normaliser: str


@dataclass(frozen=True, kw_only=True)
class GroupAccuracy:
    """The pooled errors of one group."""

    key: GroupKey
    accuracy: Accuracy

    @property
    def columns(self) -> dict[str, object]:
        """As JSON names it."""
        return {"kind": self.key.kind, "name": self.key.name, "accuracy": self.accuracy.columns}


def groups_of(utterances: Sequence[Utterance], normaliser: NormaliserChoice = "whisper") -> tuple[Group, ...]:
    """The groups of a speech set: languages, speakers, lengths and noise levels, each kind in order.

    An utterance is in at most one group of a kind. A group that would be the whole set is left out.
    Raises InputError when an utterance states no language.
    """
    kinds: dict[GroupKind, Callable[[Utterance], str | None]] = {
        "language": language_of,
        "speaker": lambda utterance: utterance.speaker,
        "length": lambda utterance: length_name(utterance.duration_s),
        "noise": lambda utterance: utterance.noise_level,
    }
    return tuple(group for kind, name_of in kinds.items() for group in _of_kind(kind, name_of, utterances, normaliser))


def group_accuracies(groups: Sequence[Group], counts: Sequence[ErrorCounts], *, seed: int) -> tuple[GroupAccuracy, ...]:
    """The errors of each group among these utterances; a group without any reference word here is left out."""
    found = []
    for group in groups:
        own = [utterance_counts for utterance_counts in counts if utterance_counts.utterance_id in group.utterances]
        if any(own_row.words for own_row in own):
            accuracy = pooled_accuracy(own, normaliser=group.normaliser, seed=seed)
            found.append(GroupAccuracy(key=group.key, accuracy=accuracy))
    return tuple(found)


def length_name(duration_s: float) -> str:
    """The group of a clip's length: short, medium or long, by its bounds in seconds."""
    return _SHORT if duration_s < SHORT_S else _MEDIUM if duration_s < LONG_S else _LONG


def _of_kind(
    kind: GroupKind,
    name_of: Callable[[Utterance], str | None],
    utterances: Sequence[Utterance],
    normaliser: NormaliserChoice,
) -> list[Group]:
    members: dict[str, list[Utterance]] = {}
    for utterance in utterances:
        if (name := name_of(utterance)) is not None:
            members.setdefault(name, []).append(utterance)
    if kind == "speaker":
        members = {name: own for name, own in members.items() if len(own) >= MIN_SPEAKER_UTTERANCES}
    return [
        Group(
            key=GroupKey(kind=kind, name=name),
            utterances=frozenset(utterance.id for utterance in members[name]),
            normaliser=normaliser_of(members[name], normaliser),
        )
        for name in sorted(members, key=_place)
        if len(members[name]) < len(utterances)
    ]


def _place(name: str) -> tuple[int, float, str]:
    """Lengths from short to long; noise from none to most, then by name; everything else by name."""
    if name in (_SHORT, _MEDIUM, _LONG):
        return (0, (_SHORT, _MEDIUM, _LONG).index(name), name)
    number, _, unit = name.partition(" ")
    if name == CLEAN:
        return (1, 0, name)
    try:
        return (2, -float(number), name) if unit == "dB" else (3, 0, name)
    except ValueError:
        return (3, 0, name)
