"""What a run knows, in memory once: its trials, what was found out about some of them, and what follows."""

from bisect import insort
from collections.abc import Sequence
from dataclasses import replace

from compression.recipe.recipe import Recipe
from search.certainty import Certainty
from search.front import front
from search.outcome import ArtifactRecord, Confirmation, Ended, Outcome
from search.records.run_records import (
    certainty_of,
    load_artifacts,
    load_confirmations,
    load_facts,
    outcome_of,
    save_artifact,
    save_confirmation,
    save_ended,
)
from search.records.study_store import StudyStore
from search.trial import Trial

SCORED = ("complete", "stopped", "failed")


class Ledger:
    """Reads a run's store when it is made; after that it is told everything, and nobody reads the store again."""

    def __init__(self, store: StudyStore) -> None:
        """Raises InputError when the store holds no facts about the run."""
        self.facts = load_facts(store)
        self._store = store
        self._trials: list[Trial] = []
        self._by_recipe: dict[str, Trial] = {}
        self._scored: list[Trial] = []
        self._complete: list[Trial] = []
        self._front: tuple[Trial, ...] | None = None
        self._certainty: Certainty | None = None
        self._confirmations = load_confirmations(store)
        self._artifacts = load_artifacts(store)
        self._ended: Ended | None = None
        for trial in store.trials():
            self.add(trial)

    @property
    def trials(self) -> Sequence[Trial]:
        """All, in the order in which they came to an end; the first one is the baseline."""
        return self._trials

    @property
    def scored(self) -> Sequence[Trial]:
        return self._scored

    @property
    def certainty(self) -> Certainty | None:
        """What the trials so far say of each other; None before the baseline has a WER."""
        if self._certainty is None:
            self._certainty = certainty_of(self.facts, self._complete, self._confirmations)
        return self._certainty

    @property
    def front(self) -> tuple[Trial, ...]:
        if self._front is None:
            self._front = front(self._complete, self.certainty)
        return self._front

    @property
    def baseline_and_front(self) -> list[Trial]:
        """What is confirmed and exported: each once, the baseline first; empty before the first trial."""
        return [*self._trials[:1], *(trial for trial in self.front if trial.number != self._trials[0].number)]

    def find(self, recipe: Recipe) -> Trial | None:
        """The trial of a recipe."""
        return self.find_id(recipe.id)

    def find_id(self, recipe_id: str) -> Trial | None:
        """The same by the recipe's id."""
        return self._by_recipe.get(recipe_id)

    def add(self, trial: Trial) -> None:
        """Know a trial that the engine has put into the store."""
        self._trials.append(trial)
        self._by_recipe.setdefault(trial.recipe.id, trial)
        if trial.state in SCORED:
            self._scored.append(trial)
        if trial.state == "complete" or len(self._trials) == 1:
            insort(self._complete, trial, key=lambda one: one.number)  # as whoever reads the store has them
            self._front = self._certainty = None

    def confirmation(self, trial: Trial) -> Confirmation | None:
        """What the confirm set said of a trial."""
        return self._confirmations.get(trial.recipe.id)

    def confirm(self, trial: Trial, confirmation: Confirmation) -> None:
        """Keep what the confirm set said."""
        save_confirmation(self._store, trial.recipe, confirmation)
        self._confirmations[trial.recipe.id] = confirmation
        self._front = self._certainty = None

    def artifact(self, trial: Trial) -> ArtifactRecord | None:
        """What came of exporting a trial's recipe."""
        return self._artifacts.get(trial.recipe.id)

    def keep_artifact(self, trial: Trial, record: ArtifactRecord) -> None:
        """Keep what came of exporting a trial's recipe."""
        save_artifact(self._store, trial.recipe, record)
        self._artifacts[trial.recipe.id] = record

    def end(self, ended: Ended | None) -> None:
        """Keep why the run ended; None: it goes on."""
        save_ended(self._store, ended)
        self._ended = ended

    def outcome(self) -> Outcome:
        """What follows so far. Raises InputError when not even the baseline was scored."""
        scored = {recipe_id for recipe_id, trial in self._by_recipe.items() if trial.accuracy}
        found = outcome_of(
            self.facts,
            self._trials,
            self.front,
            {name: record for name, record in self._confirmations.items() if name in scored},
            {name: record for name, record in self._artifacts.items() if name in scored},
            self.certainty,
        )
        return replace(found, ended=self._ended)
