"""Where proposals come from: starting points, steps from the best trial, and a sampler for the rest."""

from collections.abc import Callable, Iterator, Sequence

from compression.recipe.recipe import Recipe
from search.engines.base import Engine, Pricer, Proposal
from search.engines.proposals import DOWN, UP, Hopeless, neighbours, starting_genes
from search.records.ledger import Ledger
from search.space.space import Genes, Space
from search.trial import Trial

LOCAL_EVERY = 2
"""Every other trial is a step from the best one, the rest are the sampler's."""
MOST_REPEATS = 20
"""Proposals in a row that are known, after which untried neighbours of the front come in between."""


class LocalSteps:
    """An engine (see `search.engines.base.Engine`) around the one whose sampler makes the other proposals."""

    def __init__(self, engine: Engine, space: Space, ledger: Ledger, pricer: Pricer) -> None:
        self._engine = engine
        self._space = space
        self._ledger = ledger
        self._pricer = pricer
        self._repeats = 0
        self._hopeless = Hopeless(space)
        self._known = 0
        starts = starting_genes(space)
        self._starts = len(starts)
        for genes in starts:
            engine.enqueue(genes)
        self.enqueue: Callable[[Genes], None] = engine.enqueue
        self.begin: Callable[[Proposal, Recipe], None] = engine.begin
        self.pause: Callable[[Proposal], None] = engine.pause
        self.put_back: Callable[[Proposal], None] = engine.put_back
        self.add: Callable[[Trial], Trial] = engine.add

    def ask(self) -> Proposal | None:
        """The next proposal; after many known ones, one that is not, as long as the front has such a neighbour."""
        if self._repeats >= MOST_REPEATS:
            self._enqueue_cheapest(self._around_the_front())
        elif len(self._ledger.trials) % LOCAL_EVERY and len(self._ledger.trials) >= self._starts:
            self._enqueue_cheapest(self._cheaper_than_the_best())
        return self._engine.ask()

    def tell(self, proposal: Proposal, trial: Trial) -> None:
        self._engine.tell(proposal, trial)
        # a sampler that repeated itself so often gets one more try at a time
        self._repeats = MOST_REPEATS - 1 if self._repeats >= MOST_REPEATS else 0

    def drop(self, proposal: Proposal, trial: Trial) -> None:
        self._engine.drop(proposal, trial)
        self._repeats += 1

    def _enqueue_cheapest(self, found: Iterator[tuple[float, Genes]]) -> None:
        cheapest = min(found, key=lambda pair: pair[0], default=None)
        if cheapest:
            self._engine.enqueue(cheapest[1])

    def _cheaper_than_the_best(self) -> Iterator[tuple[float, Genes]]:
        """Untried neighbours of the cheapest feasible trial, with their objective, where it is smaller."""
        for best in self._ledger.front[:1]:
            for genes, recipe in self._untried(best, DOWN):
                objective = self._pricer.objective(recipe)
                if objective < best.objective:
                    yield objective, genes

    def _around_the_front(self) -> Iterator[tuple[float, Genes]]:
        """Untried neighbours of all that is on the front, or of the original, whose costs keep every limit."""
        for trial in self._ledger.front or self._ledger.trials[:1]:
            for genes, recipe in self._untried(trial, DOWN + UP):
                if self._pricer.rejection(recipe) is None:
                    yield self._pricer.objective(recipe), genes

    def _untried(self, trial: Trial, steps: Sequence[int]) -> Iterator[tuple[Genes, Recipe]]:
        """Neighbours that are not known, nor at least as compressed as a hopeless one."""
        for known in self._ledger.trials[self._known :]:
            self._hopeless.add(known)
        self._known = len(self._ledger.trials)
        for genes, recipe in neighbours(self._space, trial, steps):
            if self._ledger.find(recipe) is None and not self._hopeless.rules_out(recipe):
                yield genes, recipe
