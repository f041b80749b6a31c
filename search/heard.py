"""What a run keeps of the utterances that were scored."""

from collections.abc import Sequence
from dataclasses import replace

from evaluators.accuracy.error_rate import share_of
from evaluators.accuracy.evaluator import Evaluator, ScoredUtterance
from evaluators.accuracy.groups import GroupAccuracy
from evaluators.accuracy.word_errors import ErrorCounts
from search.trial import GroupErrors, Heard, Transcripts, TrialAccuracy, UtteranceErrors


def heard_of(utterances: Sequence[ScoredUtterance]) -> Heard:
    """What a trial keeps of utterances that were scored."""
    return Heard(
        utterances=tuple(
            _errors(scored.counts, scored.right_language, ran_on=scored.hypothesis.ending != "complete")
            for scored in utterances
        ),
        transcripts=Transcripts.of(scored.hypothesis.text for scored in utterances),
    )


def accuracy_of(evaluator: Evaluator, heard: Sequence[Heard]) -> TrialAccuracy:
    """What a trial keeps of what was heard, in the order of the speech set, whatever the order of its blocks."""
    found = {
        utterance.id: (utterance, text)
        for block in heard
        for utterance, text in zip(block.utterances, block.transcripts.texts, strict=True)
    }
    ordered = [found[utterance.id] for utterance in evaluator.speech.utterances if utterance.id in found]
    accuracy, groups = evaluator.accuracies([_counts(utterance) for utterance, _ in ordered])
    languages = {
        group.key: share_of(utterance.right_language for utterance, _ in ordered if utterance.id in group.utterances)
        for group in evaluator.groups
    }
    return TrialAccuracy(
        rate=accuracy.rate,
        utterances=tuple(utterance for utterance, _ in ordered),
        groups=tuple(replace(group, language_accuracy=languages[group.key]) for group in group_errors(groups)),
        transcripts=Transcripts.of(text for _, text in ordered),
    )


def group_errors(groups: Sequence[GroupAccuracy]) -> tuple[GroupErrors, ...]:
    """What a run keeps of the accuracies of groups."""
    return tuple(
        GroupErrors(key=group.key, rate=group.accuracy.rate, utterances=group.accuracy.utterances) for group in groups
    )


def _errors(counts: ErrorCounts, right_language: bool | None, *, ran_on: bool) -> UtteranceErrors:
    return UtteranceErrors(
        id=counts.utterance_id,
        insertions=counts.insertions,
        deletions=counts.deletions,
        substitutions=counts.substitutions,
        words=counts.words,
        speaker=counts.speaker,
        ran_on=ran_on,
        right_language=right_language,
    )


def _counts(utterance: UtteranceErrors) -> ErrorCounts:
    """The errors that a trial kept, as they are pooled."""
    return ErrorCounts(
        utterance_id=utterance.id,
        speaker=utterance.speaker,
        insertions=utterance.insertions,
        deletions=utterance.deletions,
        substitutions=utterance.substitutions,
        words=utterance.words,
    )
