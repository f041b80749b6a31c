"""What a search engine is to the run loop."""

from dataclasses import dataclass
from typing import Protocol

from compression.recipe.recipe import Recipe
from search.space.space import Genes
from search.trial import Trial


@dataclass(frozen=True, kw_only=True, slots=True)
class Proposal:
    """Genes to try next, under the number that their trial will have.

    `deaths`: how often the process ended while this proposal was being scored.
    """

    number: int
    genes: Genes
    deaths: int = 0


class Pricer(Protocol):
    """What a recipe costs, before anything is measured."""

    def objective(self, recipe: Recipe) -> float: ...

    def rejection(self, recipe: Recipe) -> str | None: ...


class Engine(Protocol):
    """Proposes genes, and puts every trial into the run's store before `tell` returns.

    Several proposals may be out at a time; they are told, dropped and put back in any order, by their number. One that
    is neither when the process dies is proposed again after the next start; one that was begun counts a death.
    """

    def enqueue(self, genes: Genes) -> None:
        """Propose these genes before the engine's own; genes that were enqueued before are ignored."""

    def ask(self) -> Proposal | None:
        """The next proposal; None when the engine knows of no further one, until something more is told."""

    def begin(self, proposal: Proposal, recipe: Recipe) -> None:
        """The proposal, which makes this recipe, is about to be scored."""

    def pause(self, proposal: Proposal) -> None:
        """The proposal that was begun is left for later; should the process end until then, that is no death."""

    def put_back(self, proposal: Proposal) -> None:
        """The user dropped the proposal that was begun: it comes again, and that is no death."""

    def tell(self, proposal: Proposal, trial: Trial) -> None: ...

    def drop(self, proposal: Proposal, trial: Trial) -> None:
        """The proposal makes the recipe of an earlier trial; the engine learns from that one."""

    def add(self, trial: Trial) -> Trial:
        """Record a trial that nobody asked for, under the next free number, and return it with that number.

        The engine learns from it if its recipe, before any recovery, is in the space.
        """
