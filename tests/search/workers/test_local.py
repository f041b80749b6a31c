"""Workers of this machine: memory and threads, before any is started."""

import pytest

from common.errors import InputError
from search.workers.local import check_memory, threads_of_each


@pytest.mark.parametrize(
    ("available_mb", "said"),
    [
        (None, []),
        (16000.0, []),
        (15999.0, ["Note: 4 workers may come to need 4.0 GB of memory each, and 16.0 GB are free"]),
        (4000.0, ["Note: 4 workers may come to need 4.0 GB of memory each, and 4.0 GB are free"]),
    ],
)
def test_workers_that_may_not_fit_are_said(available_mb, said):
    told: list[str] = []
    check_memory(4, 1000.0, 3000.0, available_mb, told.append)
    assert told == said


def test_workers_that_do_not_fit_are_refused_with_how_many_do():
    with pytest.raises(InputError, match=r"--workers 4: each needs about 1\.0 GB .* 3\.9 GB are free: ask for 3"):
        check_memory(4, 1000.0, 3000.0, 3900.0, print)
    with pytest.raises(InputError, match="ask for 1,"):
        check_memory(4, 1000.0, 3000.0, 10.0, print)


def test_threads_are_shared_out():
    assert [threads_of_each(8, count) for count in (1, 3, 8, 20)] == [8, 2, 1, 1]
