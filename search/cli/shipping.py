"""Commands of artifacts: make, verify, transcribe."""

from pathlib import Path
from typing import Annotated

import typer

from search.cli.app import app
from search.configuration.command_options import checked
from search.configuration.flags import (
    Data,
    Json,
    Language,
    Noise,
    Normaliser,
    SkipBroken,
    SnrDb,
    Threads,
    read_speech_path,
    speech_option,
)
from search.configuration.options import (
    Repeats,
    Utterances,
)


@app.command()
def export(
    out: Annotated[Path, typer.Option(help="The artifact's folder; an artifact that is there is replaced.")],
    run: Annotated[Path | None, typer.Argument(help="A run's folder.")] = None,
    trial: Annotated[
        str | None, typer.Option(help="Number or recipe id of the run's trial; default: the recommended one.")
    ] = None,
    recipe: Annotated[Path | None, typer.Option(help="Instead of a run: a recipe (JSON), with --model.")] = None,
    model: Annotated[str | None, typer.Option(help="The model to compress by --recipe.")] = None,
    calibration: Annotated[
        Path | None,
        speech_option(help="Speech to choose pruned units by, with --recipe."),
    ] = None,
    calibration_utterances: Annotated[
        int | None, typer.Option(help="At most so many of them; default 128.", callback=checked(Utterances))
    ] = None,
    language: Language = None,
    target: Annotated[
        str,
        typer.Option(help="onnxruntime, sherpa-onnx, ctranslate2, ggml, transcribe-cpp, huggingface or litert."),
    ] = "onnxruntime",
    bundle: Annotated[
        bool, typer.Option("--bundle", help="Two to four trials of the run: --trial A,B,C, or three of its front.")
    ] = False,
    json: Json = False,
) -> None:
    """Write a recipe as a model that a runtime loads."""
    from search.commands.bundle import run_bundle
    from search.commands.export import ExportOptions, run_export

    options = ExportOptions(
        run=run,
        trial=trial,
        recipe_file=recipe,
        model=model,
        calibration=calibration,
        calibration_utterances=calibration_utterances,
        language=language,
        target=target,
        out=out,
    )
    if bundle:
        run_bundle(options, as_json=json)
    else:
        run_export(options, as_json=json)


@app.command()
def verify(
    artifact: Annotated[Path, typer.Argument(metavar="DIR", help="A folder that `whisperfit export` wrote.")],
    data: Data = Path("sample"),
    runtime: Annotated[
        str | None, typer.Option(help="The runtime that runs it; refused where the artifact is for another one.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="The original; default: what the artifact names.")] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(
            help="The speech that it was calibrated on; default: what the artifact names.",
            parser=read_speech_path,
            metavar="<path>",
        ),
    ] = None,
    normaliser: Normaliser = "whisper",
    language: Language = None,
    skip_broken: SkipBroken = False,
    noise: Noise = None,
    snr_db: SnrDb = None,
    threads: Threads = None,
    repeats: Annotated[int, typer.Option(help="Timed runs of each clip.", callback=checked(Repeats))] = 5,
    json: Json = False,
) -> None:
    """Measure an artifact: WER, parity with torch, size, latency, memory, and what it hears in silence and noise."""
    from search.commands.verify import VerifyOptions, run_verify

    options = VerifyOptions(
        artifact=artifact,
        data=data,
        runtime=runtime,
        model=model,
        calibration=calibration,
        normaliser=normaliser,
        language=language,
        skip_broken=skip_broken,
        noise=noise,
        snr_db=snr_db,
        threads=threads,
        repeats=repeats,
    )
    run_verify(options, as_json=json)


@app.command()
def transcribe(
    artifact: Annotated[Path, typer.Argument(metavar="DIR", help="A folder that `whisperfit export` wrote.")],
    audio: Annotated[list[Path] | None, typer.Argument(help="Audio files, of any length.")] = None,
    format: Annotated[str, typer.Option(help="text, json, srt or vtt.")] = "text",  # noqa: A002 - the option's name
    language: Annotated[str | None, typer.Option(help="Such as en; default: detected where speech begins.")] = None,
    task: Annotated[str, typer.Option(help="transcribe, or translate to English.")] = "transcribe",
    beams: Annotated[int, typer.Option(help="Width of the beam search; 1 is greedy.")] = 1,
    threads: Annotated[int | None, typer.Option(help="CPU threads; default: one per core that it may use.")] = None,
    live: Annotated[
        bool,
        typer.Option(
            "--live", help="Captions while it is spoken: of standard input (16 kHz, mono, s16le), a pipe or a file."
        ),
    ] = False,
    follow: Annotated[bool, typer.Option("--follow", help="With --live: the file still grows.")] = False,
    max_lag_s: Annotated[
        float | None, typer.Option(help="With --live: words are final after so many seconds, certain or not.")
    ] = None,
    prompt: Annotated[str, typer.Option(help="Text that the decoder sees before the first piece of a file.")] = "",
    hotwords: Annotated[str, typer.Option(help="Names and terms that the decoder sees before every piece.")] = "",
    max_rtf: Annotated[
        float | None, typer.Option(help="Of a bundle, the best model whose real-time factor is lower.")
    ] = None,
    max_occupancy: Annotated[float | None, typer.Option(help="The same for CPU seconds a second of audio.")] = None,
    word_timestamps: Annotated[
        bool, typer.Option("--word-timestamps", help="With --format json: when each word was said.")
    ] = False,
    json: Json = False,
) -> None:
    """Transcribe audio with an exported model, or caption it while it is spoken."""
    from runtime.command import Request
    from search.commands.transcribe import transcribe_files

    request = Request(
        artifact=artifact,
        audio=tuple(audio or ()),
        live=live,
        follow=follow,
        max_lag_s=max_lag_s,
        prompt=prompt,
        hotwords=hotwords,
        max_rtf=max_rtf,
        max_occupancy=max_occupancy,
        word_timestamps=word_timestamps,
        format=format,
        language=language,
        task=task,
        beams=beams,
        threads=threads,
    )
    transcribe_files(request, as_json=json)
