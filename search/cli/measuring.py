"""Commands that measure or say what they know: a device, a model, this machine."""

from pathlib import Path
from typing import Annotated

import typer

from search.cli.app import app
from search.configuration.command_options import checked
from search.configuration.flags import (
    Compute,
    Data,
    Json,
    Language,
    Model,
    Noise,
    Normaliser,
    SkipBroken,
    SnrDb,
    Threads,
    speech_option,
)
from search.configuration.options import (
    CALIBRATION_UTTERANCES,
    Hours,
    Minutes,
    Utterances,
)


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
