"""The contract of an engine (see search.engines.base), run by every sampler."""

import errno
import json
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from threading import Timer
from time import monotonic

import optuna
import pytest
from optuna.exceptions import StorageInternalError
from optuna.trial import TrialState

from common.errors import InputError
from compression.recipe.recovery_spec import Recovery
from search.configuration.study_address import STUDY_NAME
from search.engines.optuna_engine import OptunaEngine
from search.records.study_store import BUSY_S, RECORD, StudyStore, advising
from search.space.space import Space
from search.trial import Trial
from tests.search.answers import answer, go_on, toy_space
from tests.search.engines.nni_threads import close_what_was_opened, needs_nni, open_threaded  # noqa: F401

SPACE = toy_space()
HELD_S = 1.0
NNI = pytest.param("nni tpe", marks=needs_nni)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "study.db"


def open_engine(file: Path, sampler: str, *, seed: int = 0, space: Space = SPACE) -> OptunaEngine:
    """As a new process does."""
    if sampler.startswith("nni "):
        return open_threaded(file, sampler.removeprefix("nni "), seed=seed, space=space)
    return OptunaEngine(StudyStore(file), space, sampler=sampler, seed=seed)


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "random", NNI])
class TestContract:
    def test_same_seed_and_answers_give_the_same_proposals(self, sampler, tmp_path):
        runs = [go_on(open_engine(tmp_path / f"{n}.db", sampler, seed=5), SPACE, 14) for n in range(2)]
        assert [p for p, _ in runs[0]] == [p for p, _ in runs[1]]
        other = go_on(open_engine(tmp_path / "other.db", sampler, seed=6), SPACE, 2)
        assert [p for p, _ in runs[0]][:2] != [p for p, _ in other]

    def test_proposals_are_in_the_space_and_numbered(self, sampler, file):
        told = go_on(open_engine(file, sampler), SPACE, 5)
        assert [p.number for p, _ in told] == list(range(5))
        for proposal, _ in told:
            assert proposal.genes.keys() == SPACE.choices.keys()
            assert all(proposal.genes[name] in values for name, values in SPACE.choices.items())

    def test_enqueued_genes_come_first_in_their_order_and_once(self, sampler, file):
        engine = open_engine(file, sampler)
        wanted = [SPACE.default_genes, SPACE.default_genes | {"embedding_bits": 4}]
        for genes in (*wanted, *wanted):
            engine.enqueue(genes)
        assert [dict(proposal.genes) for proposal, _ in go_on(engine, SPACE, 2)] == wanted
        engine.enqueue(wanted[0])
        waiting = engine._study.get_trials(states=[TrialState.WAITING])
        assert waiting == []

    def test_what_was_asked_comes_again_first_after_the_process_died(self, sampler, file):
        engine = open_engine(file, sampler)
        told = go_on(engine, SPACE, 3)
        engine.enqueue(SPACE.default_genes)
        asked = engine.ask()
        engine.enqueue(SPACE.default_genes | {"window_s": 15.0})
        again = open_engine(file, sampler)
        assert StudyStore(file).trials() == tuple(trial for _, trial in told)
        assert again.ask() == asked
        assert again.ask().genes == SPACE.default_genes | {"window_s": 15.0}

    def test_genes_that_were_enqueued_survive_a_death_before_they_were_read(self, sampler, file):
        engine = open_engine(file, sampler)
        engine.enqueue(SPACE.default_genes)
        engine._study.ask()
        assert open_engine(file, sampler).ask().genes == SPACE.default_genes

    def test_dying_again_and_again_changes_nothing(self, sampler, file):
        asked = [open_engine(file, sampler).ask() for _ in range(4)]
        assert asked[1:] == asked[:-1]
        assert len(StudyStore(file).study.get_trials()) == 1

    def test_a_written_record_is_completed_and_not_repeated(self, sampler, file):
        engine = open_engine(file, sampler)
        told = go_on(engine, SPACE, 2)
        proposal = engine.ask()
        trial = answer(proposal.number, SPACE.decode(proposal.genes))
        engine._asked[proposal.number].set_user_attr(RECORD, trial.to_json())  # and then the power went
        again = open_engine(file, sampler)
        assert StudyStore(file).trials() == (*(trial for _, trial in told), trial)
        assert again.ask().number == proposal.number + 1

    def test_what_was_told_is_remembered(self, sampler, file):
        told = [trial for _, trial in go_on(open_engine(file, sampler), SPACE, 5)]
        assert StudyStore(file).trials() == tuple(told)

    def test_plain_optuna_reads_the_study(self, sampler, file):
        engine = open_engine(file, sampler)
        for genes in (SPACE.default_genes, {name: values[-1] for name, values in SPACE.choices.items()}):
            engine.enqueue(genes)
        told = [trial for _, trial in go_on(engine, SPACE, 6)]
        assert [trial.state for trial in told[:2]] == ["complete", "stopped"]
        study = optuna.load_study(study_name=STUDY_NAME, storage=f"sqlite:///{file}")
        assert study.metric_names == ["objective", "wer"]
        for frozen, trial in zip(study.get_trials(), told, strict=True):
            assert frozen.constraints == pytest.approx(trial.violations)
            if trial.state == "complete" and trial.accuracy:
                assert (frozen.state, frozen.values) == (TrialState.COMPLETE, [trial.objective, trial.accuracy.wer])
            else:
                assert (frozen.state, frozen.values) == (TrialState.PRUNED, None)
        assert not any(max(best.constraints.values()) > 0 for best in study.best_trials)

    def test_a_dropped_proposal_is_finished_without_a_record(self, sampler, file):
        engine = open_engine(file, sampler)
        [(_, trial)] = go_on(engine, SPACE, 1)
        engine.drop(engine.ask(), trial)
        assert StudyStore(file).trials() == (trial,)
        first, second = StudyStore(file).study.get_trials()
        assert (second.state, second.values, second.constraints) == (first.state, first.values, first.constraints)
        assert second.user_attrs == {"repeats_trial": 0}
        assert open_engine(file, sampler).ask().number == 2

    def test_a_rejected_trial_tells_what_is_known(self, sampler, file):
        engine = open_engine(file, sampler)
        engine.enqueue(SPACE.default_genes | {"convolution_bits": 8})
        [(_, trial)] = go_on(engine, SPACE, 1)
        assert (trial.state, trial.accuracy) == ("rejected", None)
        [frozen] = StudyStore(file).study.get_trials()
        assert (frozen.state, frozen.constraints) == (TrialState.PRUNED, {"size": 0.2})

    def test_a_space_of_one_recipe(self, sampler, file):
        space = toy_space({"embedding_bits": (16,)})
        engine = open_engine(file, sampler, space=space)
        engine.enqueue(space.default_genes)
        assert [proposal.genes for proposal, _ in go_on(engine, space, 3)] == [space.default_genes] * 3

    def test_a_trial_that_nobody_asked_for_is_recorded_like_the_others(self, sampler, file):
        """A recovered recipe stands at the genes of what was recovered, so that the sampler goes on learning."""
        engine = open_engine(file, sampler)
        go_on(engine, SPACE, 14)
        genes = SPACE.default_genes | {"embedding_bits": 8}
        made = replace(SPACE.decode(genes), recovery=Recovery(method="distill", weights_sha256="ab" * 32))
        store = StudyStore(file)
        added = [engine.add(replace(answer(0, made), state=state)) for state in ("complete", "stopped")]
        assert [trial.number for trial in StudyStore(file).trials()] == list(range(16))
        assert StudyStore(file).trials()[-2:] == tuple(added)
        complete, pruned = store.study.trials[14:]
        assert (complete.state, pruned.state) == (TrialState.COMPLETE, TrialState.PRUNED)
        assert complete.values == [added[0].objective, added[0].accuracy.wer]
        assert complete.constraints == pruned.constraints == added[0].violations
        assert complete.params == engine._indices(genes)
        again = open_engine(file, sampler)
        asked = again._study.trials[0]
        assert optuna.search_space.intersection_search_space(store.study.trials) == asked.distributions
        if sampler == "nsga2":
            space = again._study.sampler.infer_relative_search_space(again._study, asked)
            assert space.keys() == SPACE.choices.keys()
        (proposal, _), *_ = go_on(again, SPACE, 3)
        assert proposal.number == 16

    def test_a_recipe_outside_the_space_is_kept_and_teaches_the_sampler_nothing(self, sampler, file):
        engine = open_engine(file, sampler)
        engine.enqueue(SPACE.default_genes)
        told = [trial for _, trial in go_on(engine, SPACE, 3)]
        outside = engine.add(answer(0, replace(SPACE.original, window_s=17.0)))
        assert StudyStore(file).trials() == (*told, outside)
        study = StudyStore(file).study
        assert optuna.search_space.intersection_search_space(study.trials) == study.trials[0].distributions

    def test_deaths_are_counted_from_the_beginning_of_scoring(self, sampler, file):
        for deaths in range(3):
            engine = open_engine(file, sampler)
            proposal = engine.ask()
            assert (proposal.number, proposal.deaths) == (0, deaths)
            engine.begin(proposal, SPACE.decode(proposal.genes))
        engine = open_engine(file, sampler)
        proposal = engine.ask()
        engine.begin(proposal, SPACE.decode(proposal.genes))
        engine.put_back(proposal)
        assert engine.ask() == proposal
        assert open_engine(file, sampler).ask() == proposal
        [frozen] = StudyStore(file).study.get_trials()
        assert frozen.user_attrs["summary"] == SPACE.decode(proposal.genes).summary()

    def test_several_proposals_are_told_in_any_order(self, sampler, file):
        engine = open_engine(file, sampler)
        asked = [engine.ask() for _ in range(4)]
        assert [proposal.number for proposal in asked] == [0, 1, 2, 3]
        for proposal in (asked[2], asked[0], asked[3]):
            engine.tell(proposal, answer(proposal.number, SPACE.decode(proposal.genes)))
        assert [trial.number for trial in StudyStore(file).trials()] == [0, 2, 3]
        assert open_engine(file, sampler).ask() == asked[1]

    @pytest.mark.parametrize("state", ["WAITING", "RUNNING", "COMPLETE"])
    @pytest.mark.parametrize("index", [99, -1])
    def test_an_index_that_no_gene_has_ends_no_resume(self, state, index, sampler, file):
        engine = open_engine(file, sampler)
        told = [trial for _, trial in go_on(engine, SPACE, 14)]
        engine.enqueue(SPACE.default_genes | {"embedding_bits": 4})
        if state == "RUNNING":
            engine.ask()
        number = 0 if state == "COMPLETE" else 14
        edit(file, number, index)
        again = open_engine(file, sampler)
        proposals = [proposal for proposal, _ in go_on(again, SPACE, 5)]
        assert all(proposal.genes[name] in values for proposal in proposals for name, values in SPACE.choices.items())
        assert number not in [proposal.number for proposal in proposals] or state == "COMPLETE"
        assert StudyStore(file).trials()[: len(told)] == tuple(told)
        assert open_engine(file, sampler).ask().number == 14 + 5 + (state != "COMPLETE")


def edit(file: Path, number: int, index: int) -> None:
    """By hand, in the database: one gene of a trial."""
    with closing(sqlite3.connect(file)) as connection, connection:
        (trial,) = connection.execute("SELECT trial_id FROM trials WHERE number = ?", (number,)).fetchone()
        connection.execute("UPDATE trial_params SET param_value = ? WHERE trial_id = ?", (index, trial))
        for table in ("trial_system_attributes",):
            rows = connection.execute(f"SELECT key, value_json FROM {table} WHERE trial_id = ?", (trial,)).fetchall()
            for key, text in rows:
                changed = dict.fromkeys(json.loads(text), index) if "fixed_params" in key else None
                if changed:
                    query = f"UPDATE {table} SET value_json = ? WHERE trial_id = ? AND key = ?"
                    connection.execute(query, (json.dumps(changed), trial, key))


def test_texts_are_kept(file):
    StudyStore(file).remember("key", "é\n" * 5000)
    assert StudyStore(file).recall("key") == "é\n" * 5000
    assert StudyStore(file).recall("other") is None


@pytest.mark.parametrize(
    "error", [StorageInternalError("no"), OSError(errno.ENOSPC, "no space"), OSError(errno.EDQUOT, "quota")], ids=str
)
def test_what_cannot_be_kept_is_an_error_with_advice(tmp_path, error):
    with (
        pytest.raises(InputError, match="what .* is (safe|kept): .*, then go on"),
        advising(tmp_path / "study.db", "go on"),
    ):
        raise error


def test_other_errors_are_left_alone(tmp_path):
    with pytest.raises(FileNotFoundError), advising(tmp_path / "study.db", "go on"):
        raise FileNotFoundError(errno.ENOENT, "missing")


def test_what_is_only_read_writes_nothing(tmp_path):
    file = tmp_path / "study.db"
    StudyStore(file).remember("key", "text")
    before = file.read_bytes()
    store = StudyStore(file)
    assert (store.recall("key"), store.trials()) == ("text", ())
    assert file.read_bytes() == before


@pytest.mark.parametrize("content", [b"no database at all" * 100, None])
def test_a_file_that_is_no_study_is_refused(content, file):
    if content is None:
        file.mkdir()
    else:
        file.write_bytes(content)
    with pytest.raises(InputError, match=r"study.db: cannot be opened as an Optuna study") as raised:
        StudyStore(file)
    assert "\n" not in str(raised.value)


def test_records_survive_json(file):
    for _, trial in go_on(open_engine(file, "random"), SPACE, 8):
        assert Trial.from_json(trial.to_json()) == trial


def test_a_locked_study_is_waited_for(file):
    """The timeout of sqlite3 is 5 s, which a copy of the file or a dashboard may take."""
    store = StudyStore(file)
    with closing(sqlite3.connect(file, isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN EXCLUSIVE")
        timer = Timer(HELD_S, other.rollback)
        timer.start()
        started = monotonic()
        store.remember("key", "text")
        assert monotonic() - started > 0.5 * HELD_S
        timer.join()
    assert StudyStore(file).recall("key") == "text"
    with store.study._storage._backend.engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA busy_timeout").scalar() == BUSY_S * 1000


def test_only_a_full_disk_asks_for_room(tmp_path):
    for cause, asked in (
        ("database is locked", "end that one, then go on"),
        ("database or disk is full", "make room, then go on"),
        ("attempt to write a readonly database", "see that the disk has room and can be written, then go on"),
    ):
        with pytest.raises(InputError, match=asked), advising(tmp_path / "study.db", "go on"):
            raise StorageInternalError("no") from sqlite3.OperationalError(cause)


def test_any_path_will_do(tmp_path):
    file = tmp_path / "a?b %41 #c {d} é" / "study.db"
    file.parent.mkdir()
    StudyStore(file).remember("key", "text")
    assert file.is_file()
    assert StudyStore(file).recall("key") == "text"
