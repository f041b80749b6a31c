"""The engine that a configuration names."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from search.engines.archive import Archive
from search.engines.base import Engine
from search.engines.evolution import Evolution
from search.engines.local_steps import LocalSteps
from search.engines.nni_engine import open_nni_engine
from search.engines.optuna_engine import OptunaEngine
from search.engines.proof import Priced, Proof
from search.engines.proposals import starting_genes
from search.records.folder import RunFolder
from search.records.ledger import Ledger
from search.records.study_store import StudyStore
from search.run.screening import Screening
from search.scorer import Scorer
from search.session import Session


@dataclass(frozen=True, kw_only=True)
class OpenedEngine:
    """An engine with what judges its proposals by divergence, and with how it proves an optimum, if it does so."""

    engine: Engine
    screening: Screening | None = None
    proof: Proof | None = None


@contextmanager
def open_engine(  # noqa: PLR0913 - the parts of a run
    folder: RunFolder, session: Session, store: StudyStore, ledger: Ledger, scorer: Scorer, *, everything: Priced
) -> Iterator[OpenedEngine]:
    """The engine that the configuration names. What it has started ends with the block."""
    config, space = session.config, session.space
    if config.engine == "nni":
        with open_nni_engine(folder.path, store, space, config) as engine:
            yield OpenedEngine(engine=engine)
        return
    sampler = OptunaEngine(store, space, sampler=config.sampler, seed=config.seed)
    if config.engine == "evolution":
        archive = Archive()
        screening = Screening(archive, ledger, space, confidence=config.confidence, knobs=config.screening)
        target, seed = screening.target, config.seed
        proof = Proof(space, everything, archive, ledger, target=target, bound=screening.bound, seed=seed)
        evolution = Evolution(
            sampler, space, archive, scorer, target=target, seed=seed, proof=proof, knobs=config.evolution
        )
        yield OpenedEngine(engine=evolution, screening=screening, proof=proof)
    elif config.engine == "steps":
        yield OpenedEngine(engine=LocalSteps(sampler, space, ledger, scorer))
    else:
        for genes in starting_genes(space):
            sampler.enqueue(genes)
        yield OpenedEngine(engine=sampler)
