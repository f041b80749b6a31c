"""The command line as typer sees it: what every module here adds its commands to."""

import platform
from importlib.metadata import version
from typing import Annotated

import typer

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

BESIDE = ("torch", "openai-whisper", "onnxruntime")
"""What results depend on, beside the project's own version."""


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
