"""`python -m runtime DIR AUDIO...`: what `whisperfit transcribe` does, without whisperfit."""

import argparse
import sys
from pathlib import Path

from runtime.command import Request, run
from runtime.errors import TranscribeError
from runtime.formats import FORMATS
from runtime.tokens import TASKS


def main() -> int:
    """Parse the arguments, transcribe, and return the exit code: 2 for bad input, with one line on stderr."""
    parser = argparse.ArgumentParser(prog="python -m runtime", description="Transcribe audio with a Whisper artifact.")
    parser.add_argument("artifact", type=Path, metavar="DIR", help="a folder that `whisperfit export` wrote")
    parser.add_argument("audio", type=Path, nargs="*", metavar="AUDIO", help="WAV; other formats need soundfile")
    parser.add_argument("--format", metavar="|".join(FORMATS), default="text")
    parser.add_argument(
        "--live",
        action="store_true",
        help="captions while it is spoken: of standard input (16 kHz, mono, s16le), a pipe or a file",
    )
    parser.add_argument("--follow", action="store_true", help="with --live: the file still grows")
    parser.add_argument("--prompt", default="", help="text that the decoder sees before the first piece of a file")
    parser.add_argument("--hotwords", default="", help="names and terms that the decoder sees before every piece")
    parser.add_argument("--max-rtf", type=float, help="of a bundle, the best model whose real-time factor is lower")
    parser.add_argument("--max-occupancy", type=float, help="the same for CPU seconds a second of audio")
    parser.add_argument("--word-timestamps", action="store_true", help="with --format json: when each word was said")
    parser.add_argument(
        "--max-lag-s", type=float, help="with --live: words are final after so many seconds, certain or not"
    )
    parser.add_argument("--language", help="such as en; default: detected in the first piece with speech")
    parser.add_argument("--task", metavar="|".join(TASKS), default="transcribe", help="translate: to English")
    parser.add_argument("--beams", type=int, default=1, help="width of the beam search; default 1, greedy")
    parser.add_argument("--threads", type=int, help="default: one per core")
    options = vars(parser.parse_intermixed_args())
    try:
        run(Request(**options | {"audio": tuple(options["audio"])}))
    except TranscribeError as error:
        print(f"runtime: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
