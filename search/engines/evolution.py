"""Evolution of the front of cost and divergence: the default engine.

Cost is a known function, so it is never modelled: every child's is worked out before anything is measured. Divergence
is measured in a second or two. A child changes a few genes of a member of the front, some to a more and some to a less
compressed value, as in EvoPress (Sieberling et al. 2024, arXiv 2410.14649), where a child so stays on its cost level.
Of many children the one is measured that looks best by a model of divergence: to second order, what genes do to it
adds up (HAWQ-V2, Dong et al. 2020), so the model is a sum of one non-negative step a gene value, fitted by
non-negative least squares to all that was judged.
"""

from collections.abc import Callable
from math import log

import numpy as np

from search.configuration.knobs import EvolutionKnobs
from search.engines.additive_model import MIN_FITTED, AdditiveModel
from search.engines.archive import Archive, Judged
from search.engines.base import Pricer, Proposal
from search.engines.optuna_engine import OptunaEngine
from search.engines.proof import Proof
from search.engines.proposals import single_steps, starting_genes
from search.space.genes import FREQUENT_TOKENS, VOCABULARY, Value
from search.space.space import Genes, Space
from search.trial import Trial

NEARLY = 1.5
"""How many times the budget's divergence the starting point may have around which every gene is tried."""
RANGE = 8.0
"""What diverges at most so many times as much as the budget allows is what the model is fitted to."""
OUT_FOR_A_SIBLING = 4
"""For so many recipes that are being judged, one more of the same children: that many workers never wait for one."""
ATTEMPTS = 20
"""Rounds of children without one that is new and within the limits, after which all neighbours are looked through."""


class Evolution:
    """An engine (see `search.engines.base.Engine`) whose store is that of the one it is given.

    `target`: the largest divergence that is within the WER budget, as far as the run knows by now. `proof`: by which it
    ends in a small space, once no cheaper recipe can be within the budget; None: it never ends so.
    """

    def __init__(  # noqa: PLR0913 - what it knows and what it asks
        self,
        engine: OptunaEngine,
        space: Space,
        archive: Archive,
        pricer: Pricer,
        *,
        target: Callable[[], float],
        seed: int,
        proof: Proof | None = None,
        knobs: EvolutionKnobs | None = None,
    ) -> None:
        self._engine = engine
        self._space = space
        self._archive = archive
        self._pricer = pricer
        self._target = target
        self._proof = proof
        self._knobs = knobs or EvolutionKnobs()
        self._rng = np.random.default_rng([seed, len(archive.judged)])
        self._choices = {name: values for name, values in space.choices.items() if len(values) > 1}
        behind = [
            name
            for name in self._choices
            if name.startswith("decoder.") or name in {"embedding_bits", FREQUENT_TOKENS, VOCABULARY}
        ]
        self._behind_encoder = behind or list(self._choices)
        self._starts = [dict(genes) for genes in starting_genes(space)]
        self._steps: list[Genes] | None = None
        self._model = AdditiveModel(self._choices)
        self._fitted = 0
        self._siblings: list[Genes] = []
        self.enqueue: Callable[[Genes], None] = engine.enqueue
        self.begin = engine.begin
        self.pause = engine.pause
        self.put_back = engine.put_back
        self.tell = engine.tell
        self.drop = engine.drop
        self.add: Callable[[Trial], Trial] = engine.add

    def ask(self) -> Proposal | None:
        """What was in flight when the process died or was enqueued, starting points, single steps around the best of
        them once all were judged, then children; in a small space what a proof needs, until it is complete.
        """
        if self._engine.is_waiting:
            return self._engine.ask()
        while self._starts:
            genes = self._starts.pop(0)
            if self._space.decode(genes).id not in self._archive:
                return self._engine.propose(genes)
        if self._steps is None and self._archive.expected:
            return None
        found = self._single_step() or self._next()
        return self._engine.propose(found) if found else None

    def _next(self) -> Genes | None:
        if self._proof and self._proof.is_due:
            self._fit()
            return self._proof.next(self._model)
        return self._child() or self._neighbour()

    def _single_step(self) -> Genes | None:
        """The next untried change of one gene by one value, up or down, of the starting point nearest to the budget."""
        if self._steps is None:
            self._steps = list(single_steps(self._space, self._nearest().genes)) if self._archive.front else []
        while self._steps:
            genes = self._steps.pop(0)
            recipe = self._space.decode(genes)
            if recipe.id not in self._archive and not self._pricer.rejection(recipe):
                return genes
        return None

    def _nearest(self) -> Judged:
        """Of the front the cheapest member that is nearly within the budget; if there is none, the least divergent."""
        most = NEARLY * self._target()
        near = [m for m in self._archive.front if m.divergence.mean <= most]
        return near[0] if near else self._archive.front[-1]

    def _child(self) -> Genes | None:
        """The best of many children; while many recipes are out, the best few of them, one after the other."""
        while self._siblings:
            genes = self._siblings.pop(0)
            if self._space.decode(genes).id not in self._archive:
                return genes
        self._fit()
        for _ in range(ATTEMPTS):
            children = self._children(self._parent())
            if children:
                rate = self._archive.rate(RANGE * self._target())
                merits = [self._merit(genes, objective, rate) for genes, objective in children]
                few = 1 + len(self._archive.expected) // OUT_FOR_A_SIBLING
                best, *self._siblings = [children[i][0] for i in np.argsort(merits)[:few]]
                return best
        return None

    def _parent(self) -> Judged:
        """A member of the front, most often one near the budget."""
        front = self._archive.front
        if self._rng.random() < self._knobs.aimed:
            target = self._target()
            within = [i for i, member in enumerate(front) if member.divergence.mean <= target]
            first = within[0] if within else len(front) - 1
            front = front[max(0, first - self._knobs.near) : first + self._knobs.near]
        return front[int(self._rng.integers(len(front)))]

    def _children(self, parent: Judged) -> list[tuple[Genes, float]]:
        """Genes and objective of those that are new and within the limits."""
        found: dict[str, tuple[Genes, float]] = {}
        for _ in range(self._knobs.children):
            genes = self._mutated(parent.genes)
            recipe = self._space.decode(genes)
            if recipe.id in found or recipe.id in self._archive or self._pricer.rejection(recipe):
                continue
            found[recipe.id] = genes, self._pricer.objective(recipe)
        return list(found.values())

    def _mutated(self, genes: Genes) -> dict[str, Value]:
        most = self._knobs.changed if self._fitted else 1
        pool = self._behind_encoder if self._rng.random() < self._knobs.behind_encoder else list(self._choices)
        names = self._rng.permutation(pool)[: int(self._rng.integers(1, most + 1))]
        changed = dict(genes)
        for name in names:
            values = self._choices[name]
            index = values.index(genes[name])
            if self._rng.random() < self._knobs.jump:
                index = int(self._rng.integers(len(values)))
            else:
                index += 1 if self._rng.random() < 0.5 else -1
            changed[name] = values[min(max(index, 0), len(values) - 1)]
        return changed

    def _merit(self, genes: Genes, objective: float, rate: float) -> float:
        """Smaller is better: the expected log divergence, at this rate of exchange for cost."""
        return log(self._model.drawn(genes, self._rng)) + rate * log(objective)

    def _neighbour(self) -> Genes | None:
        """The cheapest untried recipe that differs from a member of the front by one gene; None if there is none."""
        found: list[tuple[float, Genes]] = []
        for member in self._archive.front:
            for name, values in self._choices.items():
                for value in values:
                    genes = {**member.genes, name: value}
                    recipe = self._space.decode(genes)
                    if recipe.id not in self._archive and not self._pricer.rejection(recipe):
                        found.append((self._pricer.objective(recipe), genes))
        return min(found, key=lambda pair: pair[0])[1] if found else None

    def _fit(self) -> None:
        count = len(self._archive.judged)
        if count >= MIN_FITTED and (self._fitted == 0 or count >= self._fitted + self._knobs.refit_every):
            self._model.fit([pair for pair in self._archive.members() if pair[1] > 0], RANGE * self._target())
            self._fitted = count
