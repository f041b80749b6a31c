"""The front as files: every recipe on it exported, run in its own runtime and measured again."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from common.errors import EvaluationError, InputError
from common.files import write_text_whole
from compression.calibration.calibration import Calibration
from compression.compress import compress
from compression.export.manifest import Sources
from compression.export.targets import check_exportable, export
from compression.recipe.recipe import Recipe
from compression.techniques.compressed import Compressed
from compression.techniques.trained_weights import load_recovered
from compression.whisper.compute import CPU
from compression.whisper.load import LoadedModel
from evaluators.flops_check import Flops, count_flops
from evaluators.learning.calibration import calibrate
from evaluators.runtimes.own import MeasurementError
from evaluators.runtimes.verification import Verification, verify
from evaluators.speech.features import CachedFeatures
from runtime.measure import Plan
from search.heard import group_errors
from search.loading import load_speech
from search.memory_errors import MemoryShortageError, telling_memory_shortage
from search.outcome import ArtifactFigures, ArtifactRecord
from search.session import Session

REPEATS = 5


def sources_of(session: Session, recipe: Recipe) -> Sources:
    """How what a session exports can be made again."""
    config = session.config
    recovered = session.recovered / recipe.id if session.recovered and recipe.recovery else None
    return Sources(
        model=config.model,
        calibration=str(config.calibration or config.data),
        calibration_utterances=session.calibration_utterances,
        language=config.language,
        recovered=str(recovered.absolute()) if recovered else None,
    )


def compressed(model: LoadedModel, recipe: Recipe, sources: Sources) -> Compressed:
    """The network of a recipe of these sources. Raises InputError when calibration or trained weights are missing."""
    recovered = load_recovered(recipe, Path(sources.recovered) if sources.recovered else None)
    return compress(model, recipe, calibrated(model, recipe, sources), recovered)


def calibrated(model: LoadedModel, recipe: Recipe, sources: Sources) -> Calibration | None:
    """The calibration that a recipe of these sources needs, if any. Raises InputError when it cannot be made."""
    if not recipe.needs_calibration(model.dimensions):
        return None
    if sources.calibration is None:
        raise InputError(
            f"recipe {recipe.id} removes heads or channels, or has static activation ranges: "
            "give the speech that decides which: --calibration MANIFEST"
        )
    speech = load_speech(Path(sources.calibration), model, language=sources.language, skip_broken=True)
    features = CachedFeatures(n_mels=model.dimensions.n_mels)
    return calibrate(model, speech, limit=sources.calibration_utterances, features=features)


def make_artifact(
    session: Session, recipe: Recipe, folder: Path, heard: Mapping[str, str] | None = None
) -> ArtifactRecord:
    """Export a recipe to `folder`, verify it on the run's speech, and write what came out beside its files.

    `heard`: what its network said there when it was scored, by utterance; None where that was not kept.

    A recipe that the runtime cannot execute, or an artifact whose transcripts fail, gives a record with the reason.
    Raises EvaluationError where it could not be measured this time: another time it may.
    """
    with telling_memory_shortage():
        try:
            check_exportable(recipe, session.model.dimensions, session.target)
            network = session.network(recipe).on(CPU)
            verification = _exported(session, recipe, network, folder, heard)
            flops = counted_flops(session, recipe, network)
        except (MemoryShortageError, MeasurementError):
            raise
        except (InputError, EvaluationError) as error:
            return ArtifactRecord(figures=None, note=f"no artifact: {error}")
    write_text_whole(folder / "verification.json", json.dumps(verification_values(verification), indent=1) + "\n")
    return ArtifactRecord(figures=figures(verification, flops), note="", groups=group_errors(verification.groups))


def _exported(
    session: Session, recipe: Recipe, network: Compressed, folder: Path, heard: Mapping[str, str] | None
) -> Verification:
    export(session.model, recipe, network, folder, target=session.target, sources=sources_of(session, recipe))
    plan = measurement_plan(session)
    return verify(folder, session.evaluator, plan, compressed=network, window_s=recipe.window_s, heard=heard)


def counted_flops(session: Session, recipe: Recipe, network: Compressed) -> Flops:
    """The run's reference utterance, counted by fvcore in a recipe's network."""
    config = session.config
    return count_flops(
        network.network,
        session.model.dimensions,
        recipe,
        audio_s=config.reference_seconds,
        tokens=config.reference_tokens,
    )


def measurement_plan(session: Session) -> Plan:
    """The run's own threads and reference utterance."""
    config = session.config
    return Plan(
        threads=config.threads,
        repeats=REPEATS,
        reference_s=config.reference_seconds,
        reference_tokens=config.reference_tokens,
    )


def verification_values(verification: Verification) -> dict[str, object]:
    """A verification as JSON, in its file and on stdout."""
    groups = [group.columns for group in verification.groups]
    return asdict(verification) | {"accuracy": verification.accuracy.columns, "groups": groups}


def figures(verification: Verification, flops: Flops) -> ArtifactFigures:
    """What a run keeps of a verification and of the FLOPs of its network, in the CSV's units."""
    parity, measured = verification.parity, verification.measured
    return ArtifactFigures(
        rate=verification.accuracy.rate,
        size_mb=verification.size_bytes / 1e6,
        host_latency_ms=measured.reference_ms,
        host_encoder_ms=measured.encoder_ms,
        host_token_ms=measured.token_ms,
        host_load_ms=measured.load_s * 1000,
        host_memory_mb=measured.peak_rss_bytes / 1e6,
        identical_transcripts=parity.identical / parity.utterances,
        on_silence=verification.on_silence,
        on_noise=verification.on_noise,
        on_quiet=verification.on_quiet,
        on_sounds=verification.on_sounds,
        flops_fvcore_g=flops.total / 1e9,
        language_accuracy=verification.language_accuracy,
        host_utterance_ms=measured.utterance_ms,
    )
