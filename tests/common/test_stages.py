"""Seconds by stage of a measurement."""

import time
from threading import Thread

import pytest

from common.stages import collecting, spend, stage


def test_stages_add_up():
    with collecting() as spent:
        spend("decode", 1.5)
        spend("decode", 2.0)
        with stage("compress"):
            time.sleep(0.02)
    spend("decode", 100.0)  # nobody collects
    assert spent["decode"] == 3.5
    assert 0.02 <= spent["compress"] < 1.0


def test_a_stage_that_fails_counts_too():
    with collecting() as spent, pytest.raises(KeyError), stage("compress"):
        raise KeyError
    assert list(spent) == ["compress"]


def test_each_thread_has_its_own():
    with collecting() as spent:
        thread = Thread(target=spend, args=("decode", 1.0))
        thread.start()
        thread.join()
    assert spent == {}
