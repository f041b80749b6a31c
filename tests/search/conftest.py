"""A small run, made up by hand, for what reads outcomes."""

import os
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from sqlite3 import Connection

import pytest
from sqlalchemy import Engine, event

from compression.recipe.dimensions import Dimensions
from compression.recipe.recipe import Recipe
from evaluators.accuracy.error_rate import ErrorRate
from search.limits.budget import WerLimit
from search.outcome import ArtifactFigures, ArtifactRecord, Confirmation, Outcome
from search.trial import Trial, TrialAccuracy, TrialCosts, UtteranceErrors

DIMENSIONS = Dimensions(
    n_mels=80,
    n_audio_ctx=1500,
    n_audio_state=384,
    n_audio_head=6,
    n_audio_layer=2,
    n_vocab=51864,
    n_text_ctx=448,
    n_text_state=384,
    n_text_head=6,
    n_text_layer=2,
)
ORIGINAL = Recipe.original(DIMENSIONS)
GOLDEN = Path(__file__).parent / "golden"
MakeTrial = Callable[..., Trial]


def _accuracy(wer: float, *, utterances: int, words: int = 1000) -> TrialAccuracy:
    errors = round(wer * words)
    counts = [
        UtteranceErrors(id=f"u{n}", insertions=0, deletions=0, substitutions=0, words=10) for n in range(utterances)
    ]
    rate = ErrorRate(
        errors=errors,
        words=words,
        low=0.8 * errors / words,
        high=1.3 * errors / words,
        insertions=1,
        deletions=2,
        substitutions=errors - 3,
    )
    return TrialAccuracy(rate=rate, utterances=tuple(counts))


def make_rate(errors: int, words: int) -> ErrorRate:
    wer = errors / words
    return ErrorRate(errors=errors, words=words, low=0.9 * wer, high=1.2 * wer)


def _trial(number: int, *, objective: float, wer: float | None, utterances: int = 100, **changes: object) -> Trial:
    """`changes` are fields of the trial; costs are the objective's multiples."""
    trial = Trial(
        number=number,
        recipe=ORIGINAL,
        state="complete",
        objective=objective,
        costs=TrialCosts(
            size_mb=80 * objective,
            flops_g=12 * objective,
            latency_ms=1200 * objective,
            latency_low_ms=1000 * objective,
            latency_high_ms=1500 * objective,
            rtf=0.12 * objective,
            peak_memory_mb=200 * objective,
            energy_mj=900 * objective,
            parameters_m=40 * objective,
            source="estimated",
            energy_above_idle_mj=600 * objective,
            occupancy=0.06 * objective,
        ),
        accuracy=None if wer is None else _accuracy(wer, utterances=utterances),
        violations={} if wer is None else {"wer": wer / 0.055 - 1},
        seconds=10.0,
    )
    return replace(trial, **changes)  # type: ignore[arg-type]


def _recipe(bits: int, *, heads: int = 6, window_s: float = 30.0) -> Recipe:
    encoder, decoder = ORIGINAL.encoder[0], ORIGINAL.decoder[0]
    assert encoder
    assert decoder
    return replace(
        ORIGINAL,
        encoder=(replace(encoder, heads=heads, attention_bits=bits, ffn_bits=bits), None),
        decoder=(replace(decoder, heads=heads, attention_bits=bits, ffn_bits=bits), decoder),
        embedding_bits=bits,
        window_s=window_s,
    ).canonical(DIMENSIONS)


@pytest.fixture(scope="session")
def check_golden() -> Callable[[str, str], None]:
    """Compares a text with a golden file; WHISPERFIT_WRITE_GOLDEN=1 writes the file instead: then read its diff."""

    def check(name: str, text: str) -> None:
        if os.environ.get("WHISPERFIT_WRITE_GOLDEN") == "1":
            (GOLDEN / name).write_text(text, encoding="utf-8")
        assert text == (GOLDEN / name).read_text(encoding="utf-8")

    return check


@event.listens_for(Engine, "connect")
def _no_waiting_for_the_disk(connection: object, _: object) -> None:
    """Tests kill processes, never the machine; SQLite then needs no fsync, which takes most of a study's time."""
    if isinstance(connection, Connection):
        connection.execute("PRAGMA synchronous = OFF")


@pytest.fixture(scope="session")
def dimensions() -> Dimensions:
    return DIMENSIONS


@pytest.fixture(scope="session")
def make_trial() -> MakeTrial:
    return _trial


@pytest.fixture(scope="session")
def artifact_figures() -> ArtifactFigures:
    return ArtifactFigures(
        rate=ErrorRate(errors=513, words=10_000, low=0.04, high=0.07, insertions=10, deletions=20, substitutions=483),
        size_mb=30.4,
        host_latency_ms=120.0,
        host_encoder_ms=60.0,
        host_token_ms=2.0,
        host_load_ms=100.0,
        host_memory_mb=160.0,
        identical_transcripts=0.99,
        on_silence="",
        on_noise="you",
    )


@pytest.fixture(scope="session")
def outcome(artifact_figures: ArtifactFigures) -> Outcome:
    """Two on the front (0.3 and 0.4, the second one confirmed within the budget), one in each other state.

    The original and the pick are exported; the other one on the front could not be.
    """
    trials = (
        _trial(0, objective=1.0, wer=0.05),
        _trial(1, objective=0.4, wer=0.051, recipe=_recipe(8)),
        _trial(2, objective=0.3, wer=0.054, recipe=_recipe(5)),
        _trial(3, objective=0.5, wer=0.053, recipe=_recipe(8, heads=5)),
        _trial(4, objective=0.2, wer=0.35, recipe=_recipe(3)),
        _trial(
            5, objective=0.25, wer=0.2, utterances=30, recipe=_recipe(4), state="stopped", note="surely over the budget"
        ),
        _trial(
            6,
            objective=0.9,
            wer=None,
            recipe=_recipe(16, window_s=15.0),
            state="rejected",
            note="size, 72 MB > 60 MB",
            violations={"size": 0.2},
        ),
        _trial(
            7,
            objective=0.1,
            wer=None,
            recipe=_recipe(2),
            state="failed",
            note="logits </script>\nare <b>not finite</b>",
            violations={"failed": 1.0},
        ),
    )
    confirmations = {
        trials[number].recipe.id: Confirmation(rate=make_rate(round(1000 * wer), 1000), within_budget=ok)
        for number, wer, ok in ((0, 0.06, True), (1, 0.062, True), (2, 0.07, False))
    }
    return Outcome(
        model="tiny.en",
        device="imx8mplus",
        speech="search set",
        confirm_speech="confirm set",
        normaliser="English",
        wer_limit=WerLimit(rate=Fraction(55, 1000), words=1000),
        trials=trials,
        front=(trials[2], trials[1], trials[0]),
        recommended=trials[1],
        least_violating=None,
        confirmations=confirmations,
        artifacts={
            trials[0].recipe.id: ArtifactRecord(
                figures=replace(
                    artifact_figures,
                    size_mb=80.5,
                    host_latency_ms=300.0,
                    rate=replace(artifact_figures.rate, errors=500, substitutions=470),
                ),
                note="",
            ),
            trials[1].recipe.id: ArtifactRecord(figures=artifact_figures, note=""),
            trials[2].recipe.id: ArtifactRecord(figures=None, note="no artifact: embedding_bits = 5 has no kernel"),
        },
        utterances=100,
        broken_lines=2,
    )
