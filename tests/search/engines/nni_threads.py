"""An NNI experiment in threads of this process: NNI's own tuners behind the search's, without NNI's manager."""

from collections.abc import Iterator
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from common.errors import InputError
from search.configuration.options import SamplerName
from search.engines.nni_engine import NniEngine, search_space
from search.engines.nni_experiment import TUNERS, tuner_arguments
from search.engines.nni_socket import Caller, Calls, call
from search.engines.optuna_engine import OptunaEngine
from search.records.study_store import StudyStore
from search.space.space import Space

needs_nni = pytest.mark.skipif(find_spec("nni") is None, reason="NNI is not installed: pip install -e '.[nni]'")


class ThreadedExperiment:
    """See `search.engines.nni_engine.Experiment`. `dying`: trials that end before they call."""

    def __init__(self, space: Space, sampler: SamplerName, *, seed: int = 0, dying: int = 0) -> None:
        self._calls = Calls()
        self.results: list[tuple[dict[str, float], dict[str, float] | None]] = []
        self._dying = dying
        self._thread = Thread(target=self._run, args=(search_space(space), sampler, seed), daemon=True)
        self._thread.start()

    def _run(self, searched: dict[str, Any], sampler: SamplerName, seed: int) -> None:
        from search.engines.nni_tuner import SearchTuner  # noqa: PLC0415 - imports NNI

        tuner = SearchTuner(self._calls.address, TUNERS[sampler], tuner_arguments(sampler, seed))
        number = 0
        try:
            tuner.update_search_space(searched)
            while made := tuner.generate_multiple_parameters([number], st_callback=None):
                self._try(tuner, number, made[0])
                number += 1
        except (ConnectionError, KeyError):  # the search has ended, and there is no manager to be ended
            return

    def _try(self, tuner: Any, number: int, parameters: dict[str, float]) -> None:
        self._dying -= 1
        try:
            if self._dying >= 0:
                raise ConnectionError
            result = call(self._calls.address, {"trial": number, "parameters": parameters}).get("result")
        except ConnectionError:
            result = None
        if result:
            tuner.receive_trial_result(number, parameters, result)
        tuner.trial_end(number, result is not None)
        self.results.append((parameters, result))

    def wait(self) -> Caller | None:
        while self._thread.is_alive():
            if caller := self._calls.wait(0.02):
                return caller
        return None

    def ended(self, reason: str) -> InputError:
        return InputError(f"NNI does not go on: {reason}")

    def close(self) -> None:
        self._calls.close()


class ThreadedEngine(NniEngine):
    """What the contract's tests look at is that of the study's engine."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)


OPEN = ExitStack()


@pytest.fixture(autouse=True)
def close_what_was_opened() -> Iterator[None]:
    """The dead processes of a test, too."""
    yield
    OPEN.close()


def open_threaded(file: Path, sampler: SamplerName, *, seed: int = 0, space: Space, dying: int = 0) -> ThreadedEngine:
    """As a new process does; whoever was open before still waits for its answer, and gets none."""
    store = StudyStore(file)
    known = store.trials()
    study = OptunaEngine(store, space, sampler="random", seed=seed)
    experiment = ThreadedExperiment(space, sampler, seed=seed, dying=dying)
    return OPEN.enter_context(ThreadedEngine(study, space, experiment, known=known))
