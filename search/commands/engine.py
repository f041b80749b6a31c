"""The engine that a configuration names."""

from collections.abc import Iterator
from contextlib import contextmanager

from search.engines.archive import Archive
from search.engines.base import Engine
from search.engines.evolution import Evolution
from search.engines.local_steps import LocalSteps
from search.engines.nni_engine import open_nni_engine
from search.engines.optuna_engine import OptunaEngine
from search.engines.proposals import starting_genes
from search.records.folder import RunFolder
from search.records.ledger import Ledger
from search.records.study_store import StudyStore
from search.run.screening import Screening
from search.scorer import Scorer
from search.session import Session


@contextmanager
def open_engine(
    folder: RunFolder, session: Session, store: StudyStore, ledger: Ledger, scorer: Scorer
) -> Iterator[tuple[Engine, Screening | None]]:
    """The engine that the configuration names, and what judges its proposals by divergence.

    What it has started ends with the block.
    """
    config, space = session.config, session.space
    if config.engine == "nni":
        with open_nni_engine(folder.path, store, space, config) as engine:
            yield engine, None
        return
    sampler = OptunaEngine(store, space, sampler=config.sampler, seed=config.seed)
    if config.engine == "evolution":
        archive = Archive()
        screening = Screening(archive, ledger, space, scorer.divergence, confidence=config.confidence)
        yield Evolution(sampler, space, archive, scorer, target=screening.target, seed=config.seed), screening
    elif config.engine == "steps":
        yield LocalSteps(sampler, space, ledger, scorer), None
    else:
        for genes in starting_genes(space):
            sampler.enqueue(genes)
        yield sampler, None
