"""`whisperfit estimate`: what a search will need, before anything long begins."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from common.files import cache_folder
from common.log import tell
from compression.recipe.dimensions import published_dimensions
from compression.whisper.compute import compute_device
from compression.whisper.load import LoadedModel, must_be_downloaded
from evaluators.profiling.workload_artifacts import random_model
from search.commands.workers import CACHED_BYTES
from search.configuration.config import RECOVER_SHARE
from search.configuration.options import CALIBRATION_UTTERANCES, SearchOptions, at_most_half
from search.loading import Say, load_speech, open_model, use_threads
from search.needs.estimate import Estimate, Work, estimate
from search.needs.memory import MemoryNeeds, available_mb, free_disk_mb, memory_needs
from search.needs.speeds import measure_speeds

CLIPS: int = SearchOptions.model_fields["divergence_clips"].default
"""For divergence, as a search has them by default."""


@dataclass(frozen=True, kw_only=True)
class EstimateOptions:
    """The command's options; `calibration` None: half of `data`."""

    model: str
    data: Path
    calibration: Path | None
    language: str | None
    hours: float
    threads: int | None
    compute: str


def run_estimate(options: EstimateOptions, *, as_json: bool) -> None:
    """Time this machine with the model for some seconds, and print memory, disk, stages and recipes an hour."""
    use_threads(options.threads)
    model = _model(options, tell)
    work = _work(options, model)
    needs = memory_needs(model.dimensions)
    tell(f"Timing {model.name} on this machine")
    found = estimate(model.dimensions, measure_speeds(model), work)
    if as_json:
        print(json.dumps(_values(options, model, needs, found)))
    else:
        _show(options, model, needs, found)


def _model(options: EstimateOptions, say: Say) -> LoadedModel:
    """The model; where it would have to be downloaded, one of its dimensions with random weights, which is as fast."""
    if not must_be_downloaded(options.model):
        return open_model(options.model, say, options.compute)
    say(f"Note: {options.model} is not on this machine: estimated with random weights, which take as long")
    return random_model(options.model, published_dimensions(options.model)).on(compute_device(options.compute))


def _work(options: EstimateOptions, model: LoadedModel) -> Work:
    def utterances(path: Path) -> int:
        return len(load_speech(path, model, language=options.language, skip_broken=True).utterances)

    scored = utterances(options.data)
    calibration = at_most_half(CALIBRATION_UTTERANCES, scored)
    if options.calibration:
        calibration = min(CALIBRATION_UTTERANCES, utterances(options.calibration))
    return Work(calibration=calibration, scored=scored, clips=min(CLIPS, scored))


def _values(options: EstimateOptions, model: LoadedModel, needs: MemoryNeeds, found: Estimate) -> dict[str, object]:
    return {
        "model": model.name,
        "parameters_m": model.dimensions.parameters / 1e6,
        "memory_mb": asdict(needs) | {"caches": CACHED_BYTES / 1e6},
        "memory_free_mb": available_mb(),
        "disk_free_mb": free_disk_mb(cache_folder("bank")),
        "stages_s": found.stages,
        "setup_s": found.setup_s,
        "recipe_s": found.recipe_s,
        "transcripts_s": found.transcripts_s,
        "recipes_per_hour": found.recipes_per_hour,
        "hours": options.hours,
        "judged": found.judged_in(options.hours),
    }


def _show(options: EstimateOptions, model: LoadedModel, needs: MemoryNeeds, found: Estimate) -> None:
    console, free = Console(highlight=False), available_mb()
    has = "" if free is None else f"; {free / 1000:.1f} GB are free"
    console.print(
        f"{model.name}: {model.dimensions.parameters / 1e6:.0f} million parameters. All that follows is estimated, "
        "for one process where nothing is cached yet."
    )
    table = Table(box=box.SIMPLE)
    for column in ("stage", "time", "memory"):
        table.add_column(column, justify="left" if column == "stage" else "right")
    memory = {"calibration": needs.calibration}
    for stage, seconds in found.stages.items():
        table.add_row(stage, _time(seconds), f"{memory.get(stage, needs.search) / 1000:.1f} GB")
    table.add_row("a recipe, judged", _time(found.recipe_s), f"{needs.search / 1000:.1f} GB")
    table.add_row("a recipe, transcribed too", _time(found.transcripts_s), "")
    console.print(table)
    console.print(
        f"Memory: {needs.peak / 1000:.1f} GB at most, in hours {CACHED_BYTES / 1e9:.1f} GB of caches more{has}."
    )
    calibration, grid = needs.disk_calibration / 1000, needs.disk_grid / 1000
    disk = f"of {free_disk_mb(cache_folder('bank')) / 1000:.0f} GB that are free"
    console.print(f"Disk: {calibration:.1f} GB of calibration and {grid:.2f} GB for each grid that is tried, {disk}.")
    console.print(_verdict(options.hours, found))


def _verdict(hours: float, found: Estimate) -> str:
    """What comes of the hours, in a sentence or two."""
    if found.setup_s >= 3600 * hours:
        return f"In {hours:g} hours nothing is judged: the set-up alone takes {_time(found.setup_s)}."
    begin = f"In {hours:g} hours: {_time(found.setup_s)} of set-up, then about {found.recipes_per_hour:,.0f} recipes"
    return (
        f"{begin} an hour, {found.judged_in(hours):,.0f} in all; with --recover auto {1 - RECOVER_SHARE:.0%} of them."
    )


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
