"""What NNI runs for each of its trials: hands the parameters to the search and reports what they were worth.

`python -m search.engines.nni_trial SOCKET`; the search itself compresses and scores.
"""

import sys

import nni

from search.engines.nni_socket import call


def main() -> None:
    """NNI counts the trial as failed where the search ended meanwhile, or has no such genes."""
    parameters = nni.get_next_parameter()
    try:
        reply = call(sys.argv[1], {"trial": nni.get_sequence_id(), "parameters": parameters})
    except ConnectionError as error:
        sys.exit(f"not scored: {error}")
    if "refused" in reply:
        sys.exit(f"refused: {reply['refused']}")
    nni.report_final_result(reply["result"])


if __name__ == "__main__":
    main()
