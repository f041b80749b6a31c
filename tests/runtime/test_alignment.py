"""Times of words against openai-whisper's own alignment."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from whisper.timing import dtw_cpu, median_filter

from runtime.alignment import _median_filtered, aligned, first_columns
from runtime.words import word_slices

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (1, 9), (9, 1), (3, 3), (30, 40), (40, 700), (7, 3)])
def test_the_path_is_whispers(rows: int, columns: int) -> None:
    costs = RNG.normal(size=(rows, columns)).astype(np.float32)
    text, times = dtw_cpu(costs.astype(np.float64))
    enters = np.pad(np.diff(text), (1, 0), constant_values=1).astype(bool)
    np.testing.assert_array_equal(first_columns(costs), times[enters])


@pytest.mark.parametrize("positions", [2, 4, 300])
def test_the_median_filter_is_whispers(positions: int) -> None:
    weights = RNG.random((6, 20, positions), np.float32)
    np.testing.assert_array_equal(_median_filtered(weights), median_filter(torch.from_numpy(weights), 7).numpy())


def test_words_are_where_their_tokens_listen() -> None:
    """Tokens that each listen for half a second, signs within the word before them."""
    spellings = [b" Well", b",", b" it", b"'s", b" fine", b"."]
    attention = np.full((2, 7, 200), 1e-3, np.float32)
    for row in range(7):
        attention[:, row, 25 * row : 25 * (row + 1)] = 1
    words = aligned(attention, spellings, word_slices(spellings, language="en"), audio_s=3.5)
    assert [word.text for word in words] == [" Well,", " it's", " fine."]
    assert [(word.start_s, word.end_s) for word in words] == [(0.0, 0.5), (1.0, 2.0), (2.0, 2.5)]


def test_whatever_is_listened_to_no_words_overlap() -> None:
    for _ in range(20):
        spellings = [b" a", b"b", b",", b" c", b".", b" d"] * 3
        attention = RNG.random((3, len(spellings) + 1, 80), np.float32)
        words = aligned(attention, spellings, word_slices(spellings, language="en"), audio_s=RNG.uniform(0.02, 2))
        assert all(word.start_s <= word.end_s for word in words)
        assert all(earlier.end_s <= later.start_s for earlier, later in pairwise(words))
