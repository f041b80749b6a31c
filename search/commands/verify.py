"""`whisperfit verify`: what an artifact really is, measured."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

from whisper.model import Whisper

from common.errors import InputError
from common.log import tell
from compression.export.manifest import Origin, read_origin
from compression.whisper.load import LoadedModel
from evaluators.accuracy.evaluator import Evaluator
from evaluators.accuracy.normaliser_names import counted_units, parse_normaliser
from evaluators.accuracy.sounds import BATTERY
from evaluators.costs.price import stored_bytes
from evaluators.runtimes.verification import (
    Parity,
    Verification,
    original_transcribes,
    verify,
)
from evaluators.speech.features import CachedFeatures
from evaluators.speech.noisy_speech import Mixing
from runtime.measure import Measurement, Plan
from search.artifacts import compressed, verification_values
from search.commands.groups import group_lines, languages_lines
from search.loaded import check_runs_here
from search.loading import load_speech, open_model, use_threads
from search.report.group_and_silence_notes import SOUNDS, NonSpeechOutput, shortened

SHOWN_DIFFERENCES = 10


@dataclass(frozen=True, kw_only=True)
class VerifyOptions:
    """The command's options; `model`, `calibration` None: those that the artifact names."""

    artifact: Path
    data: Path
    runtime: str | None
    model: str | None
    calibration: Path | None
    language: str | None
    skip_broken: bool
    normaliser: str
    noise: Path | None
    snr_db: str | None
    threads: int | None
    repeats: int


def run_verify(options: VerifyOptions, *, as_json: bool) -> None:
    """Run the artifact on the speech set, compare it with the torch evaluation, time it, and print what came out."""
    use_threads(options.threads)
    mixing = Mixing.parse(options.noise, options.snr_db)
    normaliser = parse_normaliser(options.normaliser)
    origin = read_origin(options.artifact)
    _check_runtime(options, origin)
    model = _model(options, origin)
    speech = load_speech(options.data, model, language=options.language, skip_broken=options.skip_broken, mixing=mixing)
    features = CachedFeatures(n_mels=model.dimensions.n_mels)
    evaluator = Evaluator(speech, dimensions=model.dimensions, features=features, normaliser=normaliser)
    sources = (
        origin.sources if options.calibration is None else replace(origin.sources, calibration=str(options.calibration))
    )
    network = compressed(model, origin.recipe, sources)
    tell(f"Verifying recipe {origin.recipe.id} on {len(speech.utterances)} utterances")
    plan = Plan(threads=options.threads, repeats=options.repeats, reference_s=10.0, reference_tokens=30)
    verification = verify(options.artifact, evaluator, plan, compressed=network, window_s=origin.recipe.window_s)
    promised = stored_bytes(model.dimensions, origin.recipe)
    heard = _heard_in_nothing(verification, model.network)
    warnings = [f"The artifact {invented.note}." for invented in heard if invented.is_new]
    if as_json:
        identity = {"artifact": str(options.artifact), "model": model.name, "recipe_id": origin.recipe.id}
        values = identity | {"speech": speech.name, "broken_lines": len(speech.broken), "promised_bytes": promised}
        by_original = {invented.sound: invented.original for invented in heard}
        values |= {
            "original": {name: by_original.get(sound) for name, sound in SOUNDS.items()},
            "original_on_sounds": {sound: by_original.get(sound) for sound in verification.on_sounds},
            "warnings": warnings,
        }
        print(json.dumps(values | verification_values(verification)))
        return
    print("\n".join([*_lines(verification, promised), *(f"Warning: {warning}" for warning in warnings)]))


def _check_runtime(options: VerifyOptions, origin: Origin) -> None:
    """Raise InputError, before anything takes time, unless the artifact can be run here by what was asked for."""
    if options.runtime not in (None, origin.target):
        raise InputError(
            f"--runtime {options.runtime}: {options.artifact} is for {origin.target}; "
            f"make one: whisperfit export --target {options.runtime}"
        )
    check_runs_here(origin.target)


def _heard_in_nothing(verification: Verification, network: Whisper) -> list[NonSpeechOutput]:
    """Where the artifact speaks though nobody does; the original listens only there, for comparison."""
    texts = {sound: getattr(verification, name) for name, sound in SOUNDS.items()} | verification.on_sounds
    return [
        NonSpeechOutput(sound=sound, text=text, original=original_transcribes(network, BATTERY[sound]()))
        for sound, text in texts.items()
        if text
    ]


def _model(options: VerifyOptions, origin: Origin) -> LoadedModel:
    model = open_model(options.model or origin.sources.model, tell)
    if model.digest != origin.model_sha256:
        raise InputError(
            f"{options.artifact} was made from another model than this {model.name} (SHA-256 "
            f"{origin.model_sha256[:12]}... against {model.digest[:12]}...); name the right one: --model"
        )
    return model


def _lines(verification: Verification, promised: int) -> list[str]:
    accuracy, measured, parity = verification.accuracy, verification.measured, verification.parity
    threads = "one thread per core" if measured.threads is None else f"{measured.threads} threads"
    excess = 100 * (verification.size_bytes / promised - 1)
    lines = [
        f"{accuracy.text} in {accuracy.rate.words} {counted_units(accuracy.normaliser)}; "
        f"normaliser {accuracy.normaliser}",
        *languages_lines(verification.language_accuracy),
        *group_lines(verification.groups),
        f"size {verification.size_bytes / 1e6:.1f} MB, {excess:+.1f} % of what the recipe promised",
        f"utterance {measured.utterance_ms:.0f} ms ({measured.audio_s:.1f} s); "
        f"medians of {measured.clips} clips x {measured.repeats}, {threads}",
        *_parts(measured),
        f"memory {measured.peak_rss_bytes / 1e6:.0f} MB, Python included; loads in {1000 * measured.load_s:.0f} ms",
        "hears " + ", ".join(f"{_quoted(getattr(verification, name))} in {sound}" for name, sound in SOUNDS.items()),
        _sounds_line(verification.on_sounds),
    ]
    return lines + _differences(parity)


def _parts(measured: Measurement) -> list[str]:
    """Of what the runtime tells besides: encoder, decoder and the reference utterance."""
    if measured.encoder_ms is None or measured.token_ms is None or measured.reference_ms is None:
        return []
    return [
        f"encoder {measured.encoder_ms:.0f} ms, {measured.token_ms:.2f} ms a token ({measured.tokens:g} tokens)",
        f"reference utterance ({measured.reference_s:g} s, {measured.reference_tokens} tokens) "
        f"{measured.reference_ms:.0f} ms",
    ]


def _sounds_line(on_sounds: dict[str, str]) -> str:
    spoken = [f"{_quoted(text)} in {sound}" for sound, text in on_sounds.items() if text]
    silent = len(on_sounds) - len(spoken)
    return "hears " + ", ".join([*spoken, f"nothing in {silent} of {len(on_sounds)} synthesised sounds"])


def _quoted(text: str) -> str:
    return shortened(text) if text else "nothing"


def _differences(parity: Parity) -> list[str]:
    lines = [f"same transcript as torch on {parity.identical} of {parity.utterances} utterances"]
    for difference in parity.differences[:SHOWN_DIFFERENCES]:
        lines += [
            f"  {difference.utterance_id}",
            f"    artifact: {difference.artifact}",
            f"    torch:    {difference.torch}",
        ]
    more = len(parity.differences) - SHOWN_DIFFERENCES
    return lines + ([f"  and {more} more: see --json"] if more > 0 else [])
