"""Optuna 5 by ask and tell: two objectives (cost, WER), constraints, everything in one SQLite file.

Genes are integers in Optuna, the index of a value in its list, because the lists are ordered from the least to
the most compressed and samplers can use that order. Trials that were scored on the whole set are COMPLETE;
those that were stopped, rejected or failed are PRUNED with their constraint violations, so that no WER is ever
made up for them. A proposal that repeats a recipe is completed with that recipe's values. What no gene can make (a
recipe outside the space, a study edited by hand) is FAIL to Optuna, whose samplers then leave it out.
"""

import warnings
from dataclasses import replace

import optuna
from optuna.distributions import BaseDistribution, IntDistribution
from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.trial import TrialState

from common.errors import EvaluationError
from compression.recipe.recipe import Recipe
from search.configuration.options import SamplerName
from search.engines.base import Proposal
from search.records.study_store import RECORD, StudyStore
from search.space.space import Genes, Space
from search.trial import Trial

_POPULATION = 16
"""NSGA-II's: a night has hundreds of trials, not thousands."""
_STARTUP_TRIALS = 12
"""TPE's: the enqueued starting points and a few random ones."""
_BEGUN = "begun"
"""Attribute of a trial: how often its scoring began without coming to an end."""
_SUMMARY = "summary"


def _sampler(name: SamplerName, seed: int) -> BaseSampler:
    if name == "tpe":
        return TPESampler(seed=seed, n_startup_trials=_STARTUP_TRIALS)
    return NSGAIISampler(seed=seed, population_size=_POPULATION) if name == "nsga2" else RandomSampler(seed=seed)


class OptunaEngine:
    """See `search.engines.base.Engine`.

    With one worker, the same seed and the same answers, the proposals are the same; a resumed run draws from
    a seed of its own, made of the run's seed and the number of trials so far.
    """

    def __init__(self, store: StudyStore, space: Space, *, sampler: SamplerName, seed: int) -> None:
        self._space = space
        self._choices = {name: values for name, values in space.choices.items() if len(values) > 1}
        self._store = store
        self._study = store.study
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self._study.set_metric_names(["objective", "wer"])
        finished = len(self._study.get_trials(deepcopy=False))
        self._study.sampler = _sampler(sampler, seed + 7919 * finished)
        self._asked: dict[int, optuna.Trial] = {}
        self._interrupted = self._take_up_interrupted()
        self._enqueued = self._count_enqueued()

    def _take_up_interrupted(self) -> list[optuna.Trial]:
        """The trials that were running when their process died: they come again first, under their own numbers.

        One that already has its record only lacks the last word, and gets it.
        """
        interrupted = []
        for frozen in self._study.get_trials(deepcopy=False, states=[TrialState.RUNNING]):
            running = optuna.Trial(self._study, frozen._trial_id)
            if RECORD in frozen.user_attrs:
                self._finish(running, Trial.from_json(frozen.user_attrs[RECORD]))
            else:
                interrupted.append(running)
        return interrupted

    def enqueue(self, genes: Genes) -> None:
        self._study.enqueue_trial(self._indices(genes), skip_if_exists=True)
        self._enqueued = self._count_enqueued()

    def _count_enqueued(self) -> int:
        """Read from the study: genes that are known were not enqueued."""
        return len(self._study.get_trials(deepcopy=False, states=[TrialState.WAITING]))

    def _indices(self, genes: Genes) -> dict[str, int]:
        return {name: values.index(genes[name]) for name, values in self._choices.items()}

    @property
    def is_waiting(self) -> bool:
        """Whether what comes next was in flight in an earlier process, or was enqueued."""
        return bool(self._interrupted or self._enqueued)

    def propose(self, genes: Genes) -> Proposal:
        """These genes, as if the sampler had drawn them: one entry in the store instead of one for each gene."""
        trial = optuna.Trial(self._study, self._store.create_trial(self._indices(genes), self._distributions))
        self._asked[trial.number] = trial
        return Proposal(number=trial.number, genes=dict(self._space.default_genes) | dict(genes))

    def ask(self) -> Proposal:
        """What does not fit the space (a study edited by hand) is given up, and the next one comes."""
        while True:
            trial = self._interrupted.pop(0) if self._interrupted else self._next()
            genes = self._genes(trial)
            if genes is not None:
                self._asked[trial.number] = trial
                return Proposal(number=trial.number, genes=genes, deaths=trial.user_attrs.get(_BEGUN, 0))
            trial.set_user_attr("given_up", "its values are outside of the space")
            self._study.tell(trial, state=TrialState.FAIL)

    def _next(self) -> optuna.Trial:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self._enqueued = max(0, self._enqueued - 1)
            return self._study.ask()

    def _genes(self, trial: optuna.Trial) -> Genes | None:
        """None where the trial has an index that no value of its gene has."""
        genes = dict(self._space.default_genes)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what lies outside is told by its absence
            for name, values in self._choices.items():
                index = trial.suggest_int(name, 0, len(values) - 1)
                if not 0 <= index < len(values):
                    return None
                genes[name] = values[index]
        return genes

    def begin(self, proposal: Proposal, recipe: Recipe) -> None:
        asked = self._asked[proposal.number]
        asked.set_user_attr(_SUMMARY, recipe.summary())
        asked.set_user_attr(_BEGUN, proposal.deaths + 1)

    def pause(self, proposal: Proposal) -> None:
        self._asked[proposal.number].set_user_attr(_BEGUN, proposal.deaths)

    def put_back(self, proposal: Proposal) -> None:
        asked = self._asked.pop(proposal.number)
        asked.set_user_attr(_BEGUN, proposal.deaths)
        self._interrupted.append(asked)

    def tell(self, proposal: Proposal, trial: Trial) -> None:
        asked = self._asked.pop(proposal.number)
        asked.set_user_attr(RECORD, trial.to_json())
        self._finish(asked, trial)

    def drop(self, proposal: Proposal, trial: Trial) -> None:
        asked = self._asked.pop(proposal.number)
        asked.set_user_attr("repeats_trial", trial.number)
        self._finish(asked, trial)

    def add(self, trial: Trial) -> Trial:
        trial = replace(trial, number=len(self._study.get_trials(deepcopy=False)))
        genes = self._space.encode(replace(trial.recipe, recovery=None))
        state = TrialState.FAIL if genes is None else _state(trial)
        record = optuna.trial.create_trial(
            state=state,
            values=_values(trial) if state == TrialState.COMPLETE else None,
            params={} if genes is None else self._indices(genes),
            distributions={} if genes is None else self._distributions,
            user_attrs={RECORD: trial.to_json(), _SUMMARY: trial.recipe.summary()},
            constraints=dict(trial.violations),
        )
        self._study.add_trial(record)
        return trial

    @property
    def _distributions(self) -> dict[str, BaseDistribution]:
        """As `ask` suggests them, or Optuna would find no common space."""
        return {name: IntDistribution(0, len(values) - 1) for name, values in self._choices.items()}

    def _finish(self, asked: optuna.Trial, trial: Trial) -> None:
        for name, violation in trial.violations.items():
            if name not in asked.constraints:
                asked.set_constraint(name, violation)
        state = _state(trial)
        if state == TrialState.COMPLETE:
            self._study.tell(asked, _values(trial))
        else:
            self._study.tell(asked, state=state)


def _state(trial: Trial) -> TrialState:
    return TrialState.COMPLETE if trial.state == "complete" and trial.accuracy else TrialState.PRUNED


def _values(trial: Trial) -> list[float]:
    """What Optuna minimises. Raises EvaluationError for a trial without a WER."""
    if trial.accuracy is None:
        raise EvaluationError(f"trial {trial.number} has no WER")
    return [trial.objective, trial.accuracy.wer]
