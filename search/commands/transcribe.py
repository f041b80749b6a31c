"""`whisperfit transcribe`: what `python -m runtime` does on the device."""

from dataclasses import replace

from runtime.command import Request, run


def transcribe_files(request: Request, *, as_json: bool) -> None:
    """Transcribe the files and print them on stdout; `as_json` is the same as the format json."""
    run(replace(request, format="json") if as_json else request)
