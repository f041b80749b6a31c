"""Flags that several commands have."""

from pathlib import Path
from typing import Annotated, Any

import typer

from search.configuration.command_options import checked
from search.configuration.options import ComputeChoice, ThreadCount


def read_speech_path(given: str | Path) -> Path:
    """The speech that an option names. What knows the names is loaded when it is asked."""
    from search.configuration.name_or_path import speech_path  # noqa: PLC0415

    return speech_path(given)


def speech_option(*, help: str) -> Any:  # noqa: A002 - as typer has it
    """An option that names speech."""
    return typer.Option(help=help, parser=read_speech_path, metavar="<path>")


Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout; messages go to stderr.")]
Model = Annotated[
    str, typer.Option(help="A checkpoint, a Hugging Face or CTranslate2 directory, or a name such as tiny.en.")
]
Data = Annotated[Path, speech_option(help="Evaluation speech: a manifest, a folder, or `sample` (built in).")]
Language = Annotated[str | None, typer.Option(help="Language code where the speech set does not state it.")]
Noise = Annotated[Path | None, typer.Option(help="Mix this noise into the speech: a manifest, a folder, a file.")]
Normaliser = Annotated[str, typer.Option(help="whisper, basic, none or no-diacritics: what is done to texts first.")]
SnrDb = Annotated[str | None, typer.Option(help="Signal-to-noise ratio; several, such as 20,10,clean, are shared out.")]
SkipBroken = Annotated[bool, typer.Option("--skip-broken", help="Go on without the speech set's broken lines.")]
Threads = Annotated[
    int | None,
    typer.Option(help="CPU threads; default: one per core that this process may use.", callback=checked(ThreadCount)),
]
Compute = Annotated[
    str,
    typer.Option(
        help="Where torch computes: auto (a CUDA device, else the CPU), cpu, cuda, cuda:N, mps.",
        callback=checked(ComputeChoice),
    ),
]
OtherCompute = Annotated[
    str | None,
    typer.Option(
        "--compute", help="auto, cpu, cuda, cuda:N or mps; default: as the run.", callback=checked(ComputeChoice)
    ),
]
OtherStorage = Annotated[str | None, typer.Option("--storage", help="Instead of a folder: the run's storage.")]
OtherStudy = Annotated[str | None, typer.Option("--study", help="Its study in the storage.")]
