"""Divergences that were measured before, by any run: one line a recipe in a file of the cache."""

import json
from pathlib import Path

from common.files import cache_folder, sha256_of_text
from evaluators.accuracy.divergence import Divergence

DIVERGENCE_VERSION = 2
"""To be raised whenever the same recipe would give another network, or this another divergence."""


class KnownDivergences:
    """Those of one model, calibration and set of clips, whose digests make up `identity`; damaged lines are left out.

    A cache that cannot be written is as good as none: nothing is kept then.
    """

    def __init__(self, identity: str) -> None:
        self._file = cache_folder("divergence") / f"{sha256_of_text(f'{DIVERGENCE_VERSION}/{identity}')}.jsonl"
        self._known = dict(_read(self._file))

    def find(self, recipe_id: str) -> Divergence | None:
        """That of a recipe, on as many clips as were measured."""
        return self._known.get(recipe_id)

    def keep(self, recipe_id: str, found: Divergence) -> None:
        """Remember it, in the file too."""
        self._known[recipe_id] = found
        line = json.dumps([recipe_id, found.nats, found.tokens])
        try:
            with self._file.open("a", encoding="utf-8") as handle:
                handle.write(line + "\n")
        except OSError:
            return


def _read(file: Path) -> list[tuple[str, Divergence]]:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return []
    found = []
    for line in lines:
        try:
            recipe_id, nats, tokens = json.loads(line)
            divergence = Divergence(nats=tuple(map(float, nats)), tokens=tuple(map(int, tokens)))
        except (ValueError, TypeError):
            continue
        if nats and len(nats) == len(tokens) and min(tokens) > 0:
            found.append((str(recipe_id), divergence))
    return found
