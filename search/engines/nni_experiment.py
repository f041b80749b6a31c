"""A running experiment of NNI 3.0: its manager with the web portal, its tuner, and a process for each of its trials.

NNI's local training service runs one trial at a time (`search.engines.nni_trial`), so that its tuner knows every result
before it proposes again. Only a run that uses it imports NNI, which is an extra.
"""

import shlex
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from time import monotonic
from typing import Any

from common.errors import InputError
from common.signals import handling
from search.configuration.config import SearchConfig
from search.configuration.options import SamplerName
from search.engines.nni_socket import Caller, Calls

TUNERS: dict[SamplerName, str] = {"tpe": "TPE", "evolution": "Evolution", "random": "Random", "grid": "GridSearch"}
"""NNI's names."""
_SEEDED = ("tpe", "random")
_POPULATION = 16
"""Evolution's: NNI's 32 would be most of a short run drawn at random."""
_ROOT = Path(__file__).parents[2]
"""From which NNI's processes import this package."""
_EXHAUSTED = "TUNER_NO_MORE_TRIAL"
_ALIVE = ("INITIALIZED", "RUNNING")
_LOOKING_S = 1.0
"""How often to see whether the experiment is still alive."""
_PATIENCE_S = 180.0
"""NNI starts a trial in some two seconds; a busy machine takes longer."""
_CLOSING_S = 15.0
"""How long the last trial may take to report."""
_STARTS = 3
"""NNI gives its manager three seconds to answer, which a busy machine may exceed."""


def check_engine(config: SearchConfig) -> None:
    """Raise InputError where a run with NNI cannot begin: not installed, or another program has the portal's port."""
    if config.engine != "nni":
        return
    if find_spec("nni") is None:
        raise InputError("--engine nni: NNI is not installed: pip install 'whisperfit[nni]', or take --engine optuna")
    with socket.socket() as probe:
        if probe.connect_ex(("localhost", config.nni_port)) == 0:
            raise InputError(
                f"--nni-port {config.nni_port} (nni_port in a configuration file): another program has this port; "
                "give a free one"
            )


class NniExperiment:
    """Started when made. `folder`: the run's; what NNI writes is in `nni/` there.

    `search_space`: as NNI has it. `seed`: of the tuner, where it has one. `config`: which tuner, which port.
    """

    def __init__(self, folder: Path, search_space: dict[str, Any], config: SearchConfig, *, seed: int) -> None:
        """Raises InputError where it does not start."""
        check_engine(config)
        import_module("nni.runtime.log").silence_stdout()
        self._nni: Any = import_module("nni.experiment")
        self._folder = folder
        self._calls = Calls()
        self.url = f"http://localhost:{config.nni_port}"
        self._experiment = self._started(search_space, config, seed)

    def _started(self, search_space: dict[str, Any], config: SearchConfig, seed: int) -> Any:
        for _ in range(_STARTS):
            experiment = self._nni.Experiment("local")
            self._configure(experiment.config, search_space, config.sampler, seed)
            try:
                with _uninterrupted():
                    experiment.start(config.nni_port, run_mode=self._nni.RunMode.Detach)
            except KeyboardInterrupt:
                experiment.stop()
                raise
            except (OSError, RuntimeError) as error:
                reason = " ".join(str(error).split())
            else:
                return experiment
        self._calls.close()
        raise InputError(f"NNI's experiment does not start ({reason}): see {self._folder / 'nni'}/*/log")

    def _configure(self, config: Any, search_space: dict[str, Any], sampler: SamplerName, seed: int) -> None:
        config.experiment_name = self._folder.name
        config.experiment_working_directory = self._folder / "nni"
        config.search_space = search_space
        config.tuner.class_name = "search.engines.nni_tuner.SearchTuner"
        config.tuner.name = None
        config.tuner.code_directory = _ROOT
        config.tuner.class_args = {
            "address": self._calls.address,
            "tuner": TUNERS[sampler],
            "tuner_args": tuner_arguments(sampler, seed),
        }
        config.trial_command = shlex.join([sys.executable, "-m", "search.engines.nni_trial", self._calls.address])
        config.trial_code_directory = _ROOT
        config.trial_concurrency = 1

    def wait(self) -> Caller | None:
        """The next of NNI's processes that calls; None where its tuner has tried everything.

        Raises InputError when the experiment has ended, or starts nothing.
        """
        started = monotonic()
        while monotonic() - started < _PATIENCE_S:
            if caller := self._calls.wait(_LOOKING_S):
                return caller
            status = self._status()
            if status == _EXHAUSTED:
                return None
            if status not in _ALIVE:
                raise self.ended(f"it is {status}")
        raise self.ended(f"it has started no trial for {_PATIENCE_S:.0f} s")

    def _status(self) -> str:
        """NNI's word for it, or that nobody answers."""
        try:
            return str(self._experiment.get_status())
        except (OSError, RuntimeError):
            return "gone"

    def ended(self, reason: str) -> InputError:
        """What to do when NNI does not go on."""
        return InputError(
            f"NNI's experiment does not go on ({reason}): what was measured is kept; see "
            f"{self._folder / 'nni' / self._experiment.id}, then whisperfit resume {self._folder}"
        )

    def close(self) -> None:
        """End it when the last trial has reported, or died; no process is left, whatever Ctrl-C."""
        with _uninterrupted():
            with suppress(InputError):
                self._let_the_last_report()
            self._experiment.stop()
            self._calls.close()

    def _let_the_last_report(self) -> None:
        """NNI's tuner asks for another trial when the last one has ended."""
        started = monotonic()
        while monotonic() - started < _CLOSING_S:
            caller = self.wait()
            if caller:
                caller.answer({"known": [], "over": True, "refused": "the search ends"})
            if caller is None or "wants" in caller.message:
                break


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Ctrl-C raises KeyboardInterrupt at the end of the block: half of NNI must be neither started nor ended."""
    asked: list[int] = []
    with handling(lambda number, _: asked.append(number)):
        yield
    if asked:
        raise KeyboardInterrupt


def tuner_arguments(sampler: SamplerName, seed: int) -> dict[str, Any]:
    """NNI's, of its tuner. Grid and random search need not be told what is best; Evolution takes no seed."""
    arguments: dict[str, Any] = {"seed": seed} if sampler in _SEEDED else {}
    if sampler == "evolution":
        arguments["population_size"] = _POPULATION
    return arguments | ({"optimize_mode": "minimize"} if sampler in {"tpe", "evolution"} else {})
