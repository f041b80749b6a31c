"""Groups of a speech set on a terminal."""

from collections.abc import Sequence

from evaluators.accuracy.groups import GroupAccuracy
from evaluators.accuracy.normaliser_names import counted_units
from evaluators.accuracy.word_errors import Accuracy
from search.limits.group_budget import MIN_WORDS


def languages_lines(found: float | None) -> list[str]:
    """A line of the share of detected languages; none where the model knows but one."""
    return [] if found is None else [f"language detected in {100 * found:.1f} % of the utterances"]


def group_lines(groups: Sequence[GroupAccuracy]) -> list[str]:
    """Lines of text for a terminal, one for each group, in columns."""
    width = max((len(group.key.label) for group in groups), default=0)
    return [f"  {group.key.label:<{width}}  {_in_full(group.accuracy)}" for group in groups]


def _in_full(accuracy: Accuracy) -> str:
    clips = "1 utterance" if accuracy.utterances == 1 else f"{accuracy.utterances} utterances"
    units = counted_units(accuracy.normaliser)
    few = f", fewer than {MIN_WORDS}: hardly known" if accuracy.rate.words < MIN_WORDS else ""
    return f"{accuracy.text} in {accuracy.rate.words} {units} of {clips}{few}"
