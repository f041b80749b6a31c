"""The order in which a speech set is heard."""

import random
from collections.abc import Sequence
from math import ceil
from typing import Protocol, TypeVar


class Spoken(Protocol):
    """What somebody said."""

    @property
    def speaker(self) -> str: ...


S = TypeVar("S", bound=Spoken)


def dealt(utterances: Sequence[S], block_size: int, rng: random.Random) -> list[list[S]]:
    """Blocks of at most `block_size`, in random order, with each speaker's utterances spread over them.

    Speaker after speaker the utterances are dealt out like cards, in rounds of one for every block. Blocks differ by at
    most one utterance; where everybody speaks once, all orders are equally likely.
    """
    order = rng.sample(utterances, len(utterances))
    turns = {speaker: turn for turn, speaker in enumerate(dict.fromkeys(one.speaker for one in order))}
    order.sort(key=lambda one: turns[one.speaker])
    blocks: list[list[S]] = [[] for _ in range(ceil(len(order) / block_size))]
    for first in range(0, len(order), len(blocks)):
        hand = order[first : first + len(blocks)]
        for block, utterance in zip(rng.sample(blocks, len(hand)), hand, strict=True):
            block.append(utterance)
    for block in blocks:
        rng.shuffle(block)
    return blocks
