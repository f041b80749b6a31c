"""Blocks: every utterance once, speakers spread, no order preferred."""

import random
from collections import Counter
from dataclasses import dataclass
from math import ceil, factorial

from hypothesis import given
from hypothesis import strategies as st

from evaluators.accuracy.blocks import dealt


@dataclass(frozen=True, kw_only=True)
class Said:
    """An utterance."""

    id: int
    speaker: str


SPEAKERS = st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=60)


def said(speakers: list[str]) -> list[Said]:
    return [Said(id=n, speaker=speaker) for n, speaker in enumerate(speakers)]


@given(speakers=SPEAKERS, size=st.integers(1, 25), seed=st.integers(0, 2**32))
def test_every_utterance_is_in_one_block_and_blocks_are_of_like_size(speakers, size, seed):
    blocks = dealt(said(speakers), size, random.Random(seed))
    assert sorted(one.id for block in blocks for one in block) == list(range(len(speakers)))
    assert len(blocks) == ceil(len(speakers) / size)
    sizes = [len(block) for block in blocks]
    assert max(sizes) <= size
    assert max(sizes) - min(sizes) <= 1


@given(speakers=SPEAKERS, size=st.integers(1, 25), seed=st.integers(0, 2**32))
def test_nobody_is_in_a_block_more_often_than_their_share_and_one(speakers, size, seed):
    """A speaker's utterances lie in consecutive rounds, of which the first and the last may be shared."""
    blocks = dealt(said(speakers), size, random.Random(seed))
    for speaker, utterances in Counter(speakers).items():
        most = max(sum(one.speaker == speaker for one in block) for block in blocks)
        assert most <= utterances // len(blocks) + 2


def test_where_everybody_speaks_once_all_orders_are_as_likely():
    """Chi-squared of the 24 orders of four utterances in two blocks: its 99.9 % point with 23 degrees is 49.7."""
    drawn = 4800
    orders = Counter(
        tuple(one.id for block in dealt(said(list("abcd")), 2, random.Random(seed)) for one in block)
        for seed in range(drawn)
    )
    expected = drawn / factorial(4)
    assert len(orders) == factorial(4)
    assert sum((count - expected) ** 2 / expected for count in orders.values()) < 49.7


def test_the_same_seed_deals_the_same():
    everyone = said(["a", "b"] * 20)
    assert dealt(everyone, 7, random.Random(3)) == dealt(everyone, 7, random.Random(3))
