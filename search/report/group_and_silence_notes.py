"""Groups of the speech set, languages, and what is heard where nobody speaks, in words: summary, report, CSV notes."""

from dataclasses import dataclass

from search.limits.group_budget import GROUP, MIN_WORDS, JudgedGroup
from search.limits.verdict import LANGUAGE
from search.outcome import ArtifactFigures, Outcome
from search.trial import GroupErrors, Trial

SHOWN_CHARACTERS = 60
SOUNDS = {"on_silence": "silence", "on_quiet": "faint noise", "on_noise": "noise"}
"""By what a figure of an artifact is called, what it heard."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupRow:
    """A group of the original and of the shown trial. `limit`: the largest WER, None where the group is not judged.

    `found`: None where the trial was stopped before the group's first word.
    """

    original: GroupErrors
    found: GroupErrors | None
    limit: float | None
    remark: str


@dataclass(frozen=True, kw_only=True, slots=True)
class NonSpeechOutput:
    """A text where nobody spoke. `original`: what the original hears there; None where nobody knows."""

    sound: str
    text: str
    original: str | None

    @property
    def is_new(self) -> bool:
        """Whether the compression brought it."""
        return self.original == ""

    @property
    def note(self) -> str:
        """Such as `hears 'you' in noise, where the original hears nothing`."""
        original = {None: "", "": ", where the original hears nothing", self.text: ", and so does the original"}
        beside = original.get(self.original, f", where the original hears {shortened(self.original or '')}")
        return f"hears {shortened(self.text)} in {self.sound}{beside}"


def group_rows(outcome: Outcome, trial: Trial) -> tuple[GroupRow, ...]:
    """Every group of the run's speech set; empty in runs from before groups were kept."""
    original = outcome.baseline.accuracy.groups if outcome.baseline.accuracy else ()
    found = {group.key: group for group in trial.accuracy.groups} if trial.accuracy else {}
    judged = outcome.group_limits.judged(tuple(found.values())) if outcome.group_limits else ()
    limits = {judged_group.original.key: judged_group for judged_group in judged}
    worst = outcome.worst_group(trial)
    return tuple(
        GroupRow(
            original=group,
            found=found.get(group.key),
            limit=limits[group.key].limit.wer if group.key in limits else None,
            remark=_remark(group, limits.get(group.key), worst),
        )
        for group in original
    )


def _remark(group: GroupErrors, judged: JudgedGroup | None, worst: JudgedGroup | None) -> str:
    marks = ["worst"] if worst and worst.original.key == group.key else []
    marks += ["over"] if judged and judged.violation > 0 else []
    marks += [f"below {MIN_WORDS} words, not judged"] if group.rate.words < MIN_WORDS else []
    return ", ".join(marks)


def over_note(trial: Trial, outcome: Outcome) -> str:
    """Which group of a complete trial breaks the group budget; empty where none does."""
    is_over = trial.state == "complete" and trial.violations.get(GROUP, 0.0) > 0
    worst = outcome.worst_group(trial) if is_over else None
    return f"over the group budget in {worst.text}" if worst else ""


def languages_note(trial: Trial) -> str:
    """Whether a trial detects fewer languages than are asked for."""
    return "detects too few languages" if trial.violations.get(LANGUAGE, 0.0) > 0 else ""


def heard_in_nothing(outcome: Outcome, trial: Trial) -> list[NonSpeechOutput]:
    """What the trial's artifact hears where nobody speaks, beside the original's artifact."""
    figures, original = outcome.figures(trial), outcome.figures(outcome.baseline)
    if figures is None:
        return []
    heard, by_original = _texts(figures), _texts(original) if original else {}
    return [
        NonSpeechOutput(sound=sound, text=text, original=by_original.get(sound))
        for sound, text in heard.items()
        if text
    ]


def _texts(figures: ArtifactFigures) -> dict[str, str | None]:
    """By the sound's name, what an artifact heard; None where it was not asked."""
    return {sound: getattr(figures, name) for name, sound in SOUNDS.items()} | (figures.on_sounds or {})


def new_notes(outcome: Outcome, trial: Trial) -> list[str]:
    """What the trial's artifact, but not the original's, hears where nobody speaks."""
    return [one.note for one in heard_in_nothing(outcome, trial) if one.is_new]


def shortened(text: str) -> str:
    """In quotation marks, the beginning of a long one."""
    return repr(text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}...")
