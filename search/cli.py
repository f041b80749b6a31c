"""The `whisperfit` command. Every sub-command imports what it needs when it runs, so that --help is immediate."""

import errno
import os
import platform
import signal
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer

from common.errors import FULL, INTERRUPTED_EXIT, InputError, WhisperfitError
from common.signals import handling
from runtime.errors import TranscribeError
from search.configuration.command_options import checked, takes
from search.configuration.flags import (
    Compute,
    Data,
    Json,
    Language,
    Model,
    Noise,
    Normaliser,
    OtherCompute,
    OtherStorage,
    OtherStudy,
    SkipBroken,
    SnrDb,
    Threads,
    read_speech_path,
    speech_option,
)
from search.configuration.options import (
    CALIBRATION_UTTERANCES,
    Hours,
    LogFormat,
    Minutes,
    Repeats,
    SearchOptions,
    Trials,
    Utterances,
)

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


COST_LIMITS = (
    "max_size_mb", "max_latency_ms", "max_rtf", "max_memory_mb", "max_occupancy", "latency_confidence",
)  # fmt: skip
"""The options of a search that limit costs."""
BESIDE = ("torch", "openai-whisper", "onnxruntime")
"""What results depend on, beside the project's own version."""
FORBIDDEN = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})


def _show_versions(asked: bool) -> None:
    if asked:
        shown = ", ".join(f"{name} {version(name)}" for name in BESIDE)
        typer.echo(f"whisperfit {version('whisperfit')} (Python {platform.python_version()}, {shown})")
        raise typer.Exit


@app.callback()
def about(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and leave.", is_eager=True, callback=_show_versions)
    ] = False,
) -> None:
    """Hardware-aware compression search for OpenAI's Whisper."""


@app.command()
def devices(
    name: Annotated[str | None, typer.Argument(help="Show this device in detail.")] = None, json: Json = False
) -> None:
    """List the device profiles, or one of them with every number's source."""
    from search.commands.devices import show_devices

    show_devices(name, json)


@app.command()
def profile(
    out: Annotated[Path, typer.Option(help="The profile, NAME.toml; its table NAME.csv comes beside it.")],
    host: Annotated[str, typer.Option(help="local, ssh://USER@HOST[:PORT] or adb:SERIAL; see docs.")] = "local",
    models: Annotated[str, typer.Option(help="The models that it is for, such as tiny.en,base.")] = "tiny.en,base",
    core_set: Annotated[str | None, typer.Option(help="Cores to measure on; default: the fastest.")] = None,
    threads: Annotated[str | None, typer.Option(help="Such as 1,2,4; default: those up to the core set's.")] = None,
    minutes: Annotated[
        float, typer.Option(help="No further round of measurements begins after them.", callback=checked(Minutes))
    ] = 60.0,
    title: Annotated[str | None, typer.Option(help="Default: what the device calls itself.")] = None,
    json: Json = False,
) -> None:
    """Measure a device, this machine or one reached by ssh or adb, into a profile that --device takes."""
    from search.commands.profile import ProfileOptions, run_profile

    options = ProfileOptions(
        host=host, out=out, models=models, core_set=core_set, threads=threads, minutes=minutes, title=title
    )
    run_profile(options, as_json=json)


@app.command()
def baseline(
    model: Model = "tiny.en",
    data: Data = Path("sample"),
    recipe: Annotated[Path | None, typer.Option(help="Score this recipe (JSON) instead of the original model.")] = None,
    calibration: Annotated[Path | None, speech_option(help="Speech to choose pruned units by.")] = None,
    calibration_utterances: Annotated[int, typer.Option(callback=checked(Utterances))] = CALIBRATION_UTTERANCES,
    normaliser: Normaliser = "whisper",
    transcripts: Annotated[
        Path | None, typer.Option(help="Write what was heard beside the references: FILE.jsonl or FILE.tsv.")
    ] = None,
    language: Language = None,
    skip_broken: SkipBroken = False,
    noise: Noise = None,
    snr_db: SnrDb = None,
    threads: Threads = None,
    compute: Compute = "auto",
    json: Json = False,
) -> None:
    """Measure the WER of a model, or of one recipe of it, on a speech set."""
    from search.commands.baseline import BaselineOptions, run_baseline

    options = BaselineOptions(
        model=model,
        data=data,
        recipe_file=recipe,
        calibration=calibration,
        calibration_utterances=calibration_utterances,
        normaliser=normaliser,
        transcripts=transcripts,
        language=language,
        skip_broken=skip_broken,
        noise=noise,
        snr_db=snr_db,
        threads=threads,
        compute=compute,
    )
    run_baseline(options, as_json=json)


@app.command()
def estimate(
    hours: Annotated[float, typer.Option(help="Of the search.", callback=checked(Hours))],
    model: Model = "tiny.en",
    data: Data = Path("sample"),
    calibration: Annotated[Path | None, speech_option(help="Speech to calibrate on; default: the search's.")] = None,
    language: Language = None,
    threads: Threads = None,
    compute: Compute = "auto",
    json: Json = False,
) -> None:
    """Say what a search will need: memory, disk, time by stage, recipes an hour."""
    from search.commands.estimate import EstimateOptions, run_estimate

    options = EstimateOptions(
        model=model,
        data=data,
        calibration=calibration,
        language=language,
        hours=hours,
        threads=threads,
        compute=compute,
    )
    run_estimate(options, as_json=json)


@app.command()
@takes(SearchOptions.model_fields)
def search(
    *,
    out: Annotated[Path, typer.Option(help="The run's folder; made anew.")],
    config: Annotated[Path | None, typer.Option(help="TOML file with any of these options as keys; flags win.")] = None,
    own: Annotated[
        list[Path] | None, typer.Option("--try", help="A recipe (JSON) to try first; may be given several times.")
    ] = None,
    start_from: Annotated[
        Path | None, typer.Option(help="Another run's folder: what it measured and what holds here is taken over.")
    ] = None,
    flags: dict[str, Any],
    json: Json = False,
) -> None:
    """Search the cheapest compression of a model that keeps within a WER budget on a device."""
    from search.commands.search import Beginning, run_new_search

    beginning = Beginning(own=tuple(own or ()), start_from=start_from)
    run_new_search(beginning, out=out, config_file=config, flags=flags, as_json=json)


@app.command()
def resume(
    run: Annotated[Path, typer.Argument(help="The run's folder.")],
    hours: Annotated[
        float | None, typer.Option(help="Time for this continuation; default: what is left.", callback=checked(Hours))
    ] = None,
    trials: Annotated[
        int | None, typer.Option(help="Scored trials in all; default: the run's own number.", callback=checked(Trials))
    ] = None,
    compute: OtherCompute = None,
    json: Json = False,
) -> None:
    """Go on with a run that was interrupted, or that should go further."""
    from search.commands.search import resume_search

    resume_search(run, hours=hours, trials=trials, compute=compute, as_json=json)


@app.command()
def worker(
    storage: Annotated[str, typer.Option(help="The run's storage, such as postgresql+psycopg://USER@HOST/DATABASE.")],
    study: Annotated[str, typer.Option(help="The run's study in it.")],
    model: Annotated[str | None, typer.Option(help="Where this machine has the run's model.")] = None,
    device: Annotated[str | None, typer.Option(help="Its device profile.")] = None,
    data: Annotated[Path | None, speech_option(help="Its evaluation speech.")] = None,
    calibration: Annotated[Path | None, speech_option(help="Its calibration speech.")] = None,
    unlabelled: Annotated[Path | None, speech_option(help="Its recordings without transcripts.")] = None,
    noise: Annotated[Path | None, typer.Option(help="Its noise.")] = None,
    threads: Threads = None,
    compute: Compute = "auto",
    log_format: Annotated[str, typer.Option(help="text or json.", callback=checked(LogFormat))] = "text",
    json: Json = False,
) -> None:
    """Measure for a run that another process leads, here or on another machine, until it has ended."""
    from search.commands.worker import run_worker

    places = {
        "model": model,
        "device": device,
        "data": data,
        "calibration": calibration,
        "unlabelled": unlabelled,
        "noise": noise,
        "threads": threads,
        "compute": compute,
    }
    run_worker(storage, study, places=places, log_format=log_format, as_json=json)


@app.command()
def recover(
    run: Annotated[Path, typer.Argument(help="The run's folder.")],
    method: Annotated[str, typer.Option(help="reconstruct, distill or qat; see docs/training.md.")],
    trial: Annotated[
        str | None, typer.Option(help="Number or recipe id of the run's trial; default: the recommended one.")
    ] = None,
    hours: Annotated[
        float | None, typer.Option(help="Of training; set-up and scoring come on top.", callback=checked(Hours))
    ] = None,
    speech: Annotated[
        Path | None,
        speech_option(help="To train on; default: the run's calibration speech."),
    ] = None,
    training: Annotated[Path | None, typer.Option(help="TOML file with the training's settings.")] = None,
    compute: OtherCompute = None,
    json: Json = False,
) -> None:
    """Improve a trial of a run by training, and add the result to the run as a trial of its own."""
    from search.commands.recover import RecoverOptions, run_recover

    options = RecoverOptions(
        run=run,
        trial=trial,
        method=method,
        hours=hours,
        speech=speech,
        training=training,
        compute=compute,
    )
    run_recover(options, as_json=json)


@app.command()
def report(
    run: Annotated[Path | None, typer.Argument(help="The run's folder.")] = None,
    storage: OtherStorage = None,
    study: OtherStudy = None,
    out: Annotated[Path | None, typer.Option(help="The folder to write into, with --storage.")] = None,
    json: Json = False,
) -> None:
    """Write a run's CSV files and report again, from what its study holds."""
    from search.commands.report import gather, write_report_again

    if run is None and storage and study and out:
        gather(storage, study, out, as_json=json)
    elif run and not (storage or study or out):
        write_report_again(run, as_json=json)
    else:
        raise InputError("report takes a run's folder, or --storage, --study and --out")


@app.command()
def status(
    run: Annotated[Path | None, typer.Argument(help="The run's folder.")] = None,
    storage: OtherStorage = None,
    study: OtherStudy = None,
    json: Json = False,
) -> None:
    """Say where a run stands: whether it goes on, its workers, trials an hour, failures, the pick so far, time left."""
    from search.commands.status import Status, print_status

    if run is None and storage and study:
        print_status(Status.of_storage(storage, study), as_json=json)
    elif run and not (storage or study):
        print_status(Status.of_folder(run), as_json=json)
    else:
        raise InputError("status takes a run's folder, or --storage and --study")


@app.command()
@takes(("device", "objective", "wer_budget", "min_language_accuracy", "confidence", *COST_LIMITS))
def reprice(
    run: Annotated[Path, typer.Argument(help="The run's folder.")],
    *,
    out: Annotated[
        Path | None, typer.Option(help="Default: devices/DEVICE, or questions/... , in the run's folder.")
    ] = None,
    flags: dict[str, Any],
    json: Json = False,
) -> None:
    """Answer for another device, WER budget, objective, confidence or limit; what is not given is the run's.

    Front, pick and report come from the WERs that are known.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # a table is fitted by many small products, which threads slow
    from search.commands.reprice import reprice_run

    reprice_run(run, out=out, flags=flags, as_json=json)


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
    target: Annotated[str, typer.Option(help="onnxruntime, ctranslate2, ggml or huggingface.")] = "onnxruntime",
    json: Json = False,
) -> None:
    """Write a recipe as a model that a runtime loads."""
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
    run_export(options, as_json=json)


@app.command()
def verify(
    artifact: Annotated[Path, typer.Argument(metavar="DIR", help="A folder that `whisperfit export` wrote.")],
    data: Data = Path("sample"),
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
    audio: Annotated[list[Path], typer.Argument(help="Audio files, of any length.")],
    format: Annotated[str, typer.Option(help="text, json or srt.")] = "text",  # noqa: A002 - the option's name
    language: Annotated[str | None, typer.Option(help="Such as en; default: detected where speech begins.")] = None,
    task: Annotated[str, typer.Option(help="transcribe, or translate to English.")] = "transcribe",
    beams: Annotated[int, typer.Option(help="Width of the beam search; 1 is greedy.")] = 1,
    threads: Annotated[int | None, typer.Option(help="CPU threads; default: one per core that it may use.")] = None,
    json: Json = False,
) -> None:
    """Transcribe audio with an exported model."""
    from runtime.command import Request
    from search.commands.transcribe import transcribe_files

    request = Request(
        artifact=artifact,
        audio=tuple(audio),
        format=format,
        language=language,
        task=task,
        beams=beams,
        threads=threads,
    )
    transcribe_files(request, as_json=json)


def main() -> None:
    """Entry point: prints errors as one line and exits 2; Ctrl-C, SIGTERM and a terminal that closes exit 130."""
    try:
        with handling(signal.default_int_handler):
            app()
    except (WhisperfitError, TranscribeError) as error:
        _tell(error)
        sys.exit(2)
    except OSError as error:
        if error.errno not in FULL | FORBIDDEN:
            raise
        reason = "the disk is full" if error.errno in FULL else "a file may not be read or written"
        _tell(f"{reason} ({error})")
        sys.exit(2)
    except SystemExit as ended:
        if isinstance(ended.__context__, typer.Exit) and ended.code == INTERRUPTED_EXIT:  # typer's way with Ctrl-C
            _tell("interrupted")
        raise


def _tell(problem: object) -> None:
    from common.log import tell

    tell(f"whisperfit: {problem}")
