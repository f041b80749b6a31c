"""Commands of runs: begin, go on, help, train, read."""

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from common.errors import InputError
from search.cli.app import app
from search.configuration.command_options import checked, takes
from search.configuration.flags import (
    Compute,
    Json,
    OtherCompute,
    OtherStorage,
    OtherStudy,
    Threads,
    speech_option,
)
from search.configuration.options import (
    Hours,
    LogFormat,
    SearchOptions,
    Trials,
)

COST_LIMITS = (
    "max_size_mb", "max_latency_ms", "max_rtf", "max_memory_mb", "max_occupancy", "latency_confidence",
)  # fmt: skip
"""The options of a search that limit costs."""


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
