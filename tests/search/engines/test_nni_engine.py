"""What NNI's engine adds to the contract (see test_engines.py): NNI's tuners, in threads, behind the search's own."""

import json
import socket
from itertools import product
from pathlib import Path
from threading import Thread

import pytest

from common.errors import InputError
from search.configuration.config import SearchConfig
from search.engines.nni_engine import genes_of, parameters_of, search_space
from search.engines.nni_experiment import TUNERS, NniExperiment, check_engine
from search.engines.nni_socket import Calls, call
from search.records.study_store import StudyStore
from tests.search.answers import answer, go_on, toy_space
from tests.search.engines.nni_threads import close_what_was_opened, needs_nni, open_threaded  # noqa: F401

SPACE = toy_space()
SMALL = toy_space({"embedding_bits": (16, 8, 4), "window_s": (30.0, 15.0)})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "study.db"


def config(**changes: object) -> SearchConfig:
    values = {"model": "tiny.en", "device": "imx8mplus", "trials": 1, "engine": "nni"} | changes
    return SearchConfig.build(None, values)


@needs_nni
@pytest.mark.parametrize("sampler", TUNERS)
def test_nni_has_the_trials_of_the_study_in_their_order(sampler, file):
    engine = open_threaded(file, sampler, space=SPACE)
    engine.enqueue(SPACE.default_genes)
    told = go_on(engine, SPACE, 6)
    wait_for(engine, 6)
    first = told[0][1].objective
    assert told[0][0].genes == SPACE.default_genes
    for (proposal, trial), (parameters, result) in zip(told, engine._experiment.results, strict=True):
        assert genes_of(parameters, SPACE) == proposal.genes
        over = sum(violation for violation in trial.violations.values() if violation > 0)
        assert result["default"] == pytest.approx(trial.objective if trial.feasible else first + over)
        assert (result["number"], result["objective"]) == (trial.number, trial.objective)
        assert result.get("wer") == (trial.accuracy.wer if trial.accuracy else None)
    assert {trial.feasible for _, trial in told} == {True, False} or sampler == "grid"


def wait_for(engine, count: int) -> None:
    """Until NNI has so many results: it gets them beside the search."""
    for _ in range(500):
        if len(engine._experiment.results) >= count:
            return
        engine._experiment._thread.join(0.01)
    raise AssertionError(len(engine._experiment.results))


@needs_nni
def test_grid_search_tries_everything_once_and_then_the_study_goes_on(file):
    engine = open_threaded(file, "grid", space=SMALL)
    engine.enqueue(SMALL.default_genes)
    told = go_on(engine, SMALL, 6)
    names = SMALL.choices.keys()
    everything = [dict(zip(names, values, strict=True)) for values in product(*SMALL.choices.values())]
    tried = [dict(proposal.genes) for proposal, _ in told]
    assert sorted(map(json.dumps, tried)) == sorted(map(json.dumps, everything))
    assert [proposal.number for proposal, _ in go_on(engine, SMALL, 3)] == [6, 7, 8]


@needs_nni
def test_a_resumed_grid_search_repeats_nothing(file):
    told = go_on(open_threaded(file, "grid", space=SMALL), SMALL, 4)
    told += go_on(open_threaded(file, "grid", space=SMALL), SMALL, 2)
    assert len({json.dumps(dict(proposal.genes)) for proposal, _ in told}) == 6


@needs_nni
def test_a_repeated_proposal_is_told_to_nni_as_its_first_trial(file):
    engine = open_threaded(file, "tpe", space=SPACE)
    [(_, trial)] = go_on(engine, SPACE, 1)
    engine.drop(engine.ask(), trial)
    wait_for(engine, 2)
    assert engine._experiment.results[1][1] == engine._experiment.results[0][1]


@needs_nni
def test_what_is_asked_while_nni_is_busy_comes_from_the_study(file):
    engine = open_threaded(file, "tpe", space=SPACE)
    asked = [engine.ask() for _ in range(3)]
    for proposal in asked:
        engine.tell(proposal, answer(proposal.number, SPACE.decode(proposal.genes)))
    wait_for(engine, 1)
    assert [result["number"] for _, result in engine._experiment.results] == [0]
    assert engine.ask().number == 3


@needs_nni
def test_some_trials_of_nni_may_die_but_not_all(file):
    engine = open_threaded(file, "random", space=SPACE, dying=3)
    engine.enqueue(SPACE.default_genes)
    assert engine.ask().genes == SPACE.default_genes
    engine = open_threaded(file, "random", space=SPACE, dying=100)
    with pytest.raises(InputError, match="its trials end before they begin"):
        engine.ask()
    assert len(StudyStore(file).study.get_trials()) == 1


def test_parameters_are_indices_and_come_back_as_genes():
    searched = search_space(SPACE)
    for name, values in SPACE.choices.items():
        low, high, step = searched[name]["_value"]
        assert [round(low), round(high), step] == [0, len(values) - 1, 1]
        assert high - low == pytest.approx(len(values), abs=0.03), "so that rounding gives each as often"
        for index, value in enumerate(values):
            genes = SPACE.default_genes | {name: value}
            parameters = json.loads(json.dumps(parameters_of(genes, SPACE)))
            assert parameters[name] == index
            assert genes_of(parameters, SPACE) == genes
    typed_in = dict.fromkeys(SPACE.choices, 99.0) | {"embedding_bits": -7}
    assert genes_of(typed_in, SPACE) == {n: v[-1] for n, v in SPACE.choices.items()} | {"embedding_bits": 16}


def test_calls_are_answered_refused_or_hung_up():
    calls = Calls()
    heard: list[object] = []

    def ask(name: str) -> None:
        try:
            heard.append(call(calls.address, {"name": name}))
        except ConnectionError as error:
            heard.append(type(error))

    assert calls.wait(0.01) is None
    for answered in (True, False):
        thread = Thread(target=ask, args=("é\n",))
        thread.start()
        caller = calls.wait(5)
        assert caller.message == {"name": "é\n"}
        if answered:
            caller.answer({"value": 0.1})
        else:
            caller.hang_up()
        thread.join()
    calls.close()
    ask("late")
    assert heard == [{"value": 0.1}, ConnectionError, ConnectionError]


def test_a_folder_that_holds_no_socket_is_named(tmp_path, monkeypatch):
    deep = tmp_path / ("long" * 30)
    deep.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(deep))
    with pytest.raises(InputError, match="set TMPDIR to a short local path"):
        Calls()
    assert list(deep.iterdir()) == []


def test_who_dies_before_its_answer_stops_nobody():
    calls = Calls()
    for said in (b"", b'{"trial": 1}\n'):
        with socket.socket(socket.AF_UNIX) as dying:
            dying.connect(calls.address)
            dying.sendall(said)
        caller = calls.wait(5)
        assert (caller is None) == (not said)
    caller.answer({"value": 1})
    calls.close()


def test_without_nni_the_extra_is_named(monkeypatch):
    monkeypatch.setattr("search.engines.nni_experiment.find_spec", lambda package: None)
    with pytest.raises(InputError, match=r"pip install 'whisperfit\[nni\]'"):
        check_engine(config())
    check_engine(config(engine="optuna"))


def test_a_sampler_of_another_engine_is_refused():
    with pytest.raises(InputError, match="--sampler nsga2: --engine nni has tpe, evolution, random, grid"):
        config(sampler="nsga2")
    with pytest.raises(InputError, match="--sampler grid: --engine optuna has tpe, nsga2, random"):
        config(engine="optuna", sampler="grid")


@needs_nni
def test_what_does_not_start_is_one_line(tmp_path):
    (tmp_path / "nni").touch()
    with socket.create_server(("localhost", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(InputError, match=r"NNI's experiment does not start \(.*nni.*\): see .*/nni/\*/log") as raised:
        NniExperiment(tmp_path, search_space(SPACE), config(nni_port=port), seed=0)
    assert "\n" not in str(raised.value)
