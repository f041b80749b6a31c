"""What a browser may do with `report.html`: run the page's own scripts, and load nothing."""

import base64
import hashlib
import re
from collections.abc import Iterable

_SCRIPT = re.compile(r"<script[^>]*>(.*?)</script>", re.DOTALL)


def content_policy(scripts: Iterable[str], html: Iterable[str]) -> str:
    """A Content-Security-Policy (W3C, level 2) that allows these scripts, and those within these pieces of HTML.

    They are named by their digests: one that came with a text from outside (a path, a speaker's name) does not run,
    should it ever escape its escaping. plotly.js needs inline styles, and data and blob images for its pictures.
    """
    own = [*scripts, *(text for piece in html for text in _SCRIPT.findall(piece))]
    digests = " ".join(f"'sha256-{_digest(text)}'" for text in own)
    return f"default-src 'none'; script-src {digests}; style-src 'unsafe-inline'; img-src data: blob:; font-src data:"


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
