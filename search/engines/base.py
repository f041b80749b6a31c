"""What a search engine is to the run loop."""

from dataclasses import dataclass
from typing import Protocol

from search.space.space import Genes
from search.trial import Trial


@dataclass(frozen=True, kw_only=True, slots=True)
class Proposal:
    """Genes to try next, under the number that their trial will have."""

    number: int
    genes: Genes


class Engine(Protocol):
    """Proposes genes, and puts every trial into the run's memory before `tell` returns.

    A proposal that is neither told nor dropped when the process dies is proposed again after the next start.
    """

    def enqueue(self, genes: Genes) -> None:
        """Propose these genes before the engine's own; genes that were enqueued before are ignored."""

    def ask(self) -> Proposal: ...

    def tell(self, proposal: Proposal, trial: Trial) -> None: ...

    def drop(self, proposal: Proposal, trial: Trial) -> None:
        """The proposal makes the recipe of an earlier trial; the engine learns from that one."""
