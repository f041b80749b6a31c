"""The documentation's form: headings with text, links and paths that lead somewhere."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[1]
PAGES = sorted(
    file.relative_to(CHECKOUT)
    for pattern in ("*.md", "docs/**/*.md", "benchmarks/*.md", "results/**/*.md")
    for file in CHECKOUT.glob(pattern)
)
HEADING = re.compile(r"(#{1,6})\s+(.*)")
LINK = re.compile(r"\]\(([^)\s]+)\)")
FOLDERS = "benchmarks|common|compression|devices|docs|evaluators|runtime|search|tests"
SOURCE = re.compile(rf"`((?:{FOLDERS})/[\w./-]+\.(?:py|md|toml|html))`")


def text_of(page: Path) -> str:
    return (CHECKOUT / page).read_text(encoding="utf-8")


def prose(text: str) -> Iterator[str]:
    """The lines outside code blocks, indented or fenced."""
    fenced = False
    for line in text.splitlines():
        if line.startswith("```"):
            fenced = not fenced
        elif not fenced and not line.startswith("    "):
            yield line


def empty_headings(text: str) -> list[str]:
    """Headings that neither text nor a deeper heading follows."""
    found, last, fenced = [], None, False
    for line in text.splitlines():
        fenced ^= line.startswith("```")
        heading = HEADING.fullmatch(line)
        if heading and not fenced:
            if last and len(heading[1]) <= len(last[1]):
                found.append(last[2])
            last = heading
        elif line.strip():
            last = None
    return found + ([last[2]] if last else [])


def anchors(text: str) -> set[str]:
    """GitHub's anchors of a page's headings."""
    headings = [heading[2] for line in prose(text) if (heading := HEADING.fullmatch(line))]
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("# A\n\n## B\ntext\n", []),
        ("# A\n\n## B\n", ["B"]),
        ("# A\ntext\n\n## B\n\n## C\ntext\n", ["B"]),
        ("# A\n\n```\n# B\n```\n", []),
        ("## B\n\n# A\ntext\n", ["B"]),
    ],
)
def test_empty_headings_are_found(text, found):
    assert empty_headings(text) == found


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_every_heading_has_text(page):
    assert empty_headings(text_of(page)) == []


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_every_link_leads_somewhere(page):
    broken = []
    for target in LINK.findall("\n".join(prose(text_of(page)))):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = (CHECKOUT / page).parent / path if path else CHECKOUT / page
        if not file.exists() or (anchor and anchor not in anchors(file.read_text(encoding="utf-8"))):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "CHANGELOG.md"], ids=str)
def test_every_file_that_is_named_exists(page):
    """Paths in backticks that begin with a folder of the project."""
    named = SOURCE.findall("\n".join(prose(text_of(page))))
    assert [path for path in named if not (CHECKOUT / path).exists()] == []
