"""What the original says of the clips for divergence, from a run before: a file of the cache."""

from collections.abc import Sequence

from pydantic import TypeAdapter, ValidationError

from common.files import cache_folder, sha256_of_text, write_text_whole
from evaluators.accuracy.decoding import Ending, Hypothesis
from evaluators.accuracy.known_divergences import DIVERGENCE_VERSION

_FORMAT = TypeAdapter(list[tuple[str, tuple[int, ...], Ending]])
"""Text, tokens, ending."""


class KnownTranscripts:
    """Those of one model and one set of clips, whose digests make up `identity`, in the order of the clips.

    A file that is damaged is as good as none, and so is a cache that cannot be written.
    """

    def __init__(self, identity: str) -> None:
        name = sha256_of_text(f"{DIVERGENCE_VERSION}/{identity}")
        self._file = cache_folder("transcripts") / f"{name}.json"

    def find(self, clips: int) -> list[Hypothesis] | None:
        """Of so many clips, or None."""
        try:
            found = _FORMAT.validate_json(self._file.read_bytes())
        except (OSError, ValidationError):
            return None
        if len(found) != clips:
            return None
        return [Hypothesis(text=text, tokens=tokens, ending=ending) for text, tokens, ending in found]

    def keep(self, found: Sequence[Hypothesis]) -> None:
        """Remember them."""
        try:
            write_text_whole(
                self._file, _FORMAT.dump_json([(said.text, said.tokens, said.ending) for said in found]).decode()
            )
        except OSError:
            return
