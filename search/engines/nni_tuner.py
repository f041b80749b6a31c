"""What NNI runs as its tuner: one of its own, behind what the search itself wants to try first.

NNI loads the class by name (`search.engines.nni_experiment`) in a process of its own.
"""

import os
from typing import Any

from nni.experiment import rest
from nni.tools.package_utils import create_builtin_class_instance
from nni.tuner import Tuner

from search.engines.nni_socket import call


class SearchTuner(Tuner):
    """Asks the search before each trial: the search's own parameters come first, else NNI's tuner makes them.

    The tuner learns from the search's own as from imported data, where it does so (Evolution does not); at the
    beginning also from what the run measured before.
    """

    def __init__(self, address: str, tuner: str, tuner_args: dict[str, Any]) -> None:
        self._address = address
        self._tuner = create_builtin_class_instance(tuner, tuner_args, "tuners")
        self._of_the_search: set[int] = set()

    def update_search_space(self, search_space: dict[str, Any]) -> None:
        self._tuner.update_search_space(search_space)
        self._tuner.import_data(self._ask({"begins": True})["known"])

    def generate_multiple_parameters(self, parameter_id_list: list[int], **kwargs: Any) -> list[Any]:
        """NNI's experiment has one trial at a time, so there is one id."""
        [number] = parameter_id_list
        reply = self._ask({"wants": number})
        if "over" in reply:
            return []
        if reply["parameters"] is None:
            made: list[Any] = self._tuner.generate_multiple_parameters(parameter_id_list, **kwargs)
            return made
        self._of_the_search.add(number)
        return [reply["parameters"]]

    def receive_trial_result(self, parameter_id: int, parameters: Any, value: Any, **kwargs: Any) -> None:
        if parameter_id in self._of_the_search:
            self._tuner.import_data([{"parameter": parameters, "value": value}])
        else:
            self._tuner.receive_trial_result(parameter_id, parameters, value, **kwargs)

    def trial_end(self, parameter_id: int, success: bool, **kwargs: Any) -> None:
        if parameter_id not in self._of_the_search:
            self._tuner.trial_end(parameter_id, success, **kwargs)

    def _ask(self, message: dict[str, Any]) -> dict[str, Any]:
        """Where the search has ended without a word, so does NNI's manager: nobody else would end it."""
        try:
            return call(self._address, message)
        except ConnectionError:
            port = os.environ["NNI_TUNER_COMMAND_CHANNEL"].rpartition(":")[2].partition("/")[0]
            rest.delete(int(port), "/experiment")
            raise
