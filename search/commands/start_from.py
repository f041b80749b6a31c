"""`search --start-from RUN`: what another run measured and what is still true, as trials of a new one."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from common.errors import CompressionError, EvaluationError, InputError
from compression.techniques.trained_weights import load_recovered, save_recovered
from search.configuration.config import SearchConfig
from search.engines.optuna_engine import OptunaEngine
from search.limits.verdict import Budgets, Judge, lacks_languages
from search.loaded import Loaded
from search.loading import Say
from search.records.folder import RunFolder
from search.records.run_records import (
    RunFacts,
    budgets_of,
    judged,
    load_confirmations,
    load_facts,
    save_confirmation,
    save_taken_over,
)
from search.records.study_store import StudyStore
from search.reprice import Target, reprice
from search.scorer import Scorer
from search.session import CLIPS, Session
from search.trial import Trial


@dataclass(frozen=True, kw_only=True)
class Source:
    """The other run. `trials[0]` is its original, scored on the whole set."""

    folder: RunFolder
    store: StudyStore
    config: SearchConfig
    facts: RunFacts
    digests: dict[str, str]
    trials: tuple[Trial, ...]

    @classmethod
    def open(cls, path: Path) -> "Source":
        """Raises InputError where there is no run, or one without a baseline."""
        folder = RunFolder.open(path)
        store = StudyStore(folder.study, create=False)
        trials = store.trials()
        if not trials or trials[0].state != "complete":
            raise InputError(f"--start-from {path}: the original has no WER there, so nothing can be compared with it")
        return cls(
            folder=folder,
            store=store,
            config=folder.config(),
            facts=load_facts(store),
            digests=folder.environment(),
            trials=trials,
        )

    @property
    def budgets(self) -> Budgets:
        return budgets_of(self.facts)

    def check(self, loaded: Loaded) -> None:
        """Raise InputError, saying what differs, where no WER of the run holds here."""
        speech, facts, asked = loaded.evaluator.speech, self.facts, loaded.config.language
        pairs = {
            "model": (facts.model, loaded.model.name, self._has("model_sha256", loaded.model.digest)),
            "speech": (facts.speech, speech.name, self._has("speech_sha256", speech.digest)),
            "normaliser": (facts.normaliser, loaded.evaluator.normaliser, None),
            "language": (self.config.language or asked, asked or self.config.language, None),
        }
        for name, (theirs, ours, is_same) in pairs.items():
            if is_same is False or (is_same is None and theirs != ours):
                content = f"{theirs}, and here {ours}" if theirs != ours else f"{theirs}, with another content then"
                raise InputError(
                    f"--start-from {self.folder.path}: its {name} was {content}, so nothing that it measured holds here"
                )
        if lacks_languages(self.trials[0].accuracy, loaded.config.min_language_accuracy):
            raise InputError(
                f"--start-from {self.folder.path}: it is older than --min-language-accuracy and measured no detected "
                "languages; leave one of the two out"
            )

    def _has(self, name: str, digest: str) -> bool:
        return self.digests.get(name) == digest


def take_over(source: Source, session: Session, store: StudyStore, say: Say) -> None:
    """Record what holds of the source's trials as the new run's own, priced and judged by its device and budgets.

    The original comes first. What was left out is said, with the reason.
    """
    for change in source.folder.version_changes():
        say(f"Note: {source.folder.path}: {change}")
    engine = OptunaEngine(store, session.space, sampler=session.config.sampler, seed=session.config.seed)
    left_out: Counter[str] = Counter()
    taken = [engine.add(trial) for trial in _taken(source, session, left_out)]
    save_taken_over(store, len(taken))
    _take_confirmations(source, session, store, {trial.recipe.id for trial in taken})
    say(f"Taken over from {source.folder.path}: {len(taken)} trials")
    for reason, count in left_out.items():
        say(f"Note: left out {count} of its trials: {reason}")


def _taken(source: Source, session: Session, left_out: Counter[str]) -> Iterator[Trial]:
    """In their order, without those that do not hold; these are counted by their reason."""
    target = Target(
        profile=session.profile,
        config=session.config,
        dimensions=session.model.dimensions,
        run_device=source.facts.device,
        run_budgets=source.budgets,
    )
    repriced = {trial.number: trial for trial in reprice([t for t in source.trials if t.accuracy], target)}
    for before in source.trials:
        reason = _reason_against(before, repriced.get(before.number), source, session)
        if before.accuracy is None and before.divergence and not reason:
            _know(before, source, session)
        elif reason:
            left_out[reason] += 1
        elif before.number in repriced:
            trial = _with_divergence(repriced[before.number], source, session)
            if trial is None:
                left_out["its divergence cannot be measured"] += 1
                continue
            _take_weights(trial, source, session)
            yield _noted(trial, source)


def _noted(trial: Trial, source: Source) -> Trial:
    """The trial with where it comes from; of the original nobody needs to know."""
    if trial.number == source.trials[0].number:
        return trial
    origin = f"taken over from trial {trial.number} of {source.folder.path.name}"
    return replace(trial, note="; ".join(filter(None, (trial.note, origin))))


def _reason_against(before: Trial, now: Trial | None, source: Source, session: Session) -> str:
    """Why a measurement does not hold here; empty where it does."""
    is_calibrated = before.recipe.needs_calibration(session.model.dimensions)
    if (before.accuracy or before.divergence) and is_calibrated and not _same_calibration(source, session):
        return "they were calibrated on other speech"
    if now is None:
        return ""
    if now.state == "rejected":
        return f"{session.profile.name} does not execute them"
    if before.state == "stopped" and not _is_as_strict(source, session):
        return f"they were stopped early by the budget of {source.facts.wer_budget}"
    if before.recipe.recovery and not _has_weights(before, source):
        return "their trained weights are gone"
    return ""


def _same_calibration(source: Source, session: Session) -> bool:
    counts = (source.config.fitted_utterances(source.facts.utterances), session.calibration_utterances)
    return source.digests.get("calibration_sha256") == session.calibration_digest and counts[0] == counts[1]


def _is_as_strict(source: Source, session: Session) -> bool:
    """Whether what was surely over the source's budgets is so over the session's."""
    original = source.trials[0].accuracy
    ours = budgets_of(session.facts)
    if original is None or ours.group != source.budgets.group:
        return False
    before, now = (Judge.of(original, budgets).wer_limit.rate for budgets in (source.budgets, ours))
    return now <= before


def _same_clips(source: Source, session: Session) -> bool:
    return CLIPS in session.digests and source.digests.get(CLIPS) == session.digests[CLIPS]


def _know(trial: Trial, source: Source, session: Session) -> None:
    """Keep a divergence of what was not scored, so that it need not be measured again."""
    known = session.divergences
    if known and trial.divergence and _same_clips(source, session) and known.find(trial.recipe.id) is None:
        known.keep(trial.recipe.id, trial.divergence)


def _with_divergence(trial: Trial, source: Source, session: Session) -> Trial | None:
    """The trial with the divergence on the session's clips, if that judges by it; None where it cannot be measured."""
    if session.meter is None:
        return replace(trial, divergence=None)
    if trial.divergence and _same_clips(source, session):
        return trial
    try:
        return replace(trial, divergence=Scorer(session).divergence(trial.recipe, lambda _: False))
    except (CompressionError, EvaluationError):
        return None


def _has_weights(trial: Trial, source: Source) -> bool:
    try:
        load_recovered(trial.recipe, source.folder.recovered / trial.recipe.id)
    except InputError:
        return False
    return True


def _take_weights(trial: Trial, source: Source, session: Session) -> None:
    weights = load_recovered(trial.recipe, source.folder.recovered / trial.recipe.id)
    if weights is not None and session.recovered:
        save_recovered(session.recovered / trial.recipe.id, trial.recipe, weights)


def _take_confirmations(source: Source, session: Session, store: StudyStore, taken: set[str]) -> None:
    """Of the same confirm set, judged by the session's budgets."""
    if source.digests.get("confirm_sha256") != session.digests.get("confirm_sha256", ""):
        return
    known = load_confirmations(source.store)
    baseline = known.get(session.original.id)
    for trial in source.trials:
        if baseline and trial.recipe.id in taken & known.keys():
            save_confirmation(store, trial.recipe, judged(known[trial.recipe.id], baseline, session.facts))
