"""NNI's tuners, with their web portal: every trial of the run is also one of an NNI experiment.

The study stays the memory. What it has waiting (starting points, steps, what was interrupted) is given to NNI's tuner
as the next trial's parameters; else the tuner makes them, and they go into the study. So NNI's trials are the study's,
in the same order. A parameter is the index of a gene's value, as in the study: the values go from the least to the most
compressed, and NNI's TPE uses the order of numbers but not that of choices.

NNI minimises one number. It gets Deb's penalty (2000, An efficient constraint handling method for genetic algorithms):
the objective of what is within every limit, else the original's objective plus the sum of what is over.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from compression.recipe.recipe import Recipe
from search.configuration.config import SearchConfig
from search.engines.base import Proposal
from search.engines.nni_experiment import NniExperiment
from search.engines.nni_socket import Caller
from search.engines.optuna_engine import OptunaEngine
from search.engines.proposals import starting_genes
from search.records.study_store import StudyStore
from search.space.space import Genes, Space
from search.trial import Trial

_MOST_CALLS = 10
"""Of NNI's processes, until a trial comes of it: the tuner's beginning, its question, and some that died."""
_HALF = 0.49
"""NNI draws a number and rounds it, so that every value is as likely as any other."""


class Experiment(Protocol):
    """What `NniExperiment` is to this engine."""

    def wait(self) -> Caller | None: ...

    def ended(self, reason: str) -> Exception: ...

    def close(self) -> None: ...


class NniEngine:
    """An engine (see `search.engines.base.Engine`) around the study's. Closed at the end of its block.

    NNI has one trial at a time. What is asked while it is out comes from the study's own sampler, and so does what is
    asked when NNI's tuner has tried everything (a small grid).
    """

    def __init__(self, engine: OptunaEngine, space: Space, experiment: Experiment, *, known: tuple[Trial, ...]) -> None:
        """`known`: what the run measured before, of which NNI is told."""
        self._engine = engine
        self._space = space
        self._experiment = experiment
        self._known = known
        self._worst = known[0].objective if known else None
        self._callers: dict[int, Caller] = {}
        self._exhausted = False
        self.enqueue: Callable[[Genes], None] = engine.enqueue
        self.begin: Callable[[Proposal, Recipe], None] = engine.begin
        self.pause: Callable[[Proposal], None] = engine.pause
        self.add: Callable[[Trial], Trial] = engine.add

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for caller in self._callers.values():
            caller.hang_up()
        self._experiment.close()

    def ask(self) -> Proposal | None:
        """What waits in the study, or else the tuner's next. Raises InputError when NNI does not go on."""
        own = self._engine.ask() if self._engine.is_waiting else None
        called = None if self._exhausted or self._callers else self._next_trial(own)
        if called is None:
            return own or self._engine.ask()
        caller, genes = called
        proposal = own or self._engine.propose(genes)
        self._callers[proposal.number] = caller
        return proposal

    def _next_trial(self, own: Proposal | None) -> tuple[Caller, Genes] | None:
        """The trial that NNI has started, of the search's own proposal if there is one; None when there are no more."""
        for _ in range(_MOST_CALLS):
            caller = self._experiment.wait()
            if caller is None:
                self._exhausted = True
                return None
            if "trial" not in caller.message:
                self._answer_tuner(caller, own)
                continue
            genes = genes_of(caller.message["parameters"], self._space)
            if own is None or genes == own.genes:
                return caller, genes
            caller.answer({"refused": "the search waits for another trial"})
        raise self._experiment.ended("its trials end before they begin")

    def _answer_tuner(self, caller: Caller, own: Proposal | None) -> None:
        if "begins" in caller.message:
            caller.answer({"known": self._history()})
        else:
            caller.answer({"parameters": None if own is None else parameters_of(own.genes, self._space)})

    def _history(self) -> list[dict[str, Any]]:
        found = [(self._space.encode(trial.recipe), trial) for trial in self._known if not trial.recipe.recovery]
        return [
            {"parameter": parameters_of(genes, self._space), "value": self._value(trial)}
            for genes, trial in found
            if genes is not None
        ]

    def put_back(self, proposal: Proposal) -> None:
        self._engine.put_back(proposal)
        if caller := self._callers.pop(proposal.number, None):
            caller.hang_up()

    def tell(self, proposal: Proposal, trial: Trial) -> None:
        if self._worst is None:
            self._worst = trial.objective
        self._engine.tell(proposal, trial)
        self._report(proposal, trial)

    def drop(self, proposal: Proposal, trial: Trial) -> None:
        self._engine.drop(proposal, trial)
        self._report(proposal, trial)

    def _report(self, proposal: Proposal, trial: Trial) -> None:
        """To NNI, which shows the rest beside the number that it minimises."""
        if caller := self._callers.pop(proposal.number, None):
            wer = {"wer": trial.accuracy.wer} if trial.accuracy else {}
            shown = {"number": trial.number, "objective": trial.objective, "size_mb": trial.costs.size_mb} | wer
            caller.answer({"result": {"default": self._value(trial)} | shown})

    def _value(self, trial: Trial) -> float:
        """What NNI minimises."""
        if trial.feasible or self._worst is None:
            return trial.objective
        return self._worst + sum(max(0.0, violation) for violation in trial.violations.values())


def open_nni_engine(folder: Path, store: StudyStore, space: Space, config: SearchConfig) -> NniEngine:
    """The engine of a run in this folder, with its experiment running and its starting points waiting.

    Says on stderr where the portal is. Raises InputError where NNI does not start.
    """
    study = OptunaEngine(store, space, sampler="random", seed=config.seed)
    for genes in starting_genes(space):
        study.enqueue(genes)
    known = store.trials()
    experiment = NniExperiment(folder, search_space(space), config, seed=config.seed + 7919 * len(known))
    print(f"NNI's portal, while the run goes on: {experiment.url}", file=sys.stderr)
    return NniEngine(study, space, experiment, known=known)


def search_space(space: Space) -> dict[str, Any]:
    """The space as NNI has it: for every gene, the index of its value."""
    return {
        name: {"_type": "quniform", "_value": [-_HALF, len(values) - 1 + _HALF, 1]}
        for name, values in space.choices.items()
    }


def parameters_of(genes: Genes, space: Space) -> dict[str, float]:
    """Genes as NNI has them."""
    return {name: float(values.index(genes[name])) for name, values in space.choices.items()}


def genes_of(parameters: dict[str, float], space: Space) -> Genes:
    """NNI's parameters as genes; what somebody typed into the portal is taken as the nearest that there is."""
    return {
        name: values[min(max(round(parameters[name]), 0), len(values) - 1)] for name, values in space.choices.items()
    }
