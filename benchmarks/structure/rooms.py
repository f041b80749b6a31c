"""Rooms of the project's packages: files, lines, and the imports between them.

    python benchmarks/structure/rooms.py [--revision REV] [--arrows] [--json]

A room is a file or a folder directly in a package; an arrow says that some module of one room imports some module of
another room of the same package. A cycle is a set of rooms that import each other, directly or by way of others.
--revision measures a commit instead of the working tree; --arrows lists the arrows.
"""

import argparse
import ast
import io
import json
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

PACKAGES = ("benchmarks", "common", "compression", "devices", "evaluators", "runtime", "search")
CHECKOUT = Path(__file__).parents[2]

Arrow = tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class Package:
    """What was counted. `lines`: all but blank ones. `cycles`: groups of rooms."""

    name: str
    rooms: int
    files: int
    lines: int
    longest_file: int
    arrows: tuple[Arrow, ...]
    cycles: tuple[tuple[str, ...], ...]


def count(root: Path, name: str) -> Package:
    """Count the package `name` in the checkout `root`."""
    folder = root / name
    files = {file.relative_to(folder): file.read_text(encoding="utf-8") for file in sorted(folder.rglob("*.py"))}
    rooms = {_room(path) for path in files} - {"__init__"}
    names = _names(name, files)
    arrows = {
        (_room(path), names[module])
        for path, text in files.items()
        for module in imported(text)
        if module in names and names[module] != _room(path)
    }
    lines = [sum(bool(line.strip()) for line in text.splitlines()) for text in files.values()]
    return Package(
        name=name,
        rooms=len(rooms),
        files=len(files),
        lines=sum(lines),
        longest_file=max((len(text.splitlines()) for text in files.values()), default=0),
        arrows=tuple(sorted(arrow for arrow in arrows if arrow[1] in rooms and arrow[0] in rooms)),
        cycles=cycles(arrows),
    )


def _room(path: Path) -> str:
    return path.parts[0].removesuffix(".py")


def _names(package: str, files: Mapping[Path, str]) -> dict[str, str]:
    """The room of every module by the names that imports use; scripts of `benchmarks` go by their own names too."""
    names = {}
    for path in files:
        parts = path.with_suffix("").parts
        parts = parts[:-1] if parts[-1] == "__init__" else parts
        names[".".join((package, *parts))] = _room(path)
        if package == "benchmarks" and 0 < len(parts) <= 2:
            names.setdefault(parts[-1], _room(path))
    return names


def imported(text: str) -> Iterator[str]:
    """The modules that a source text may import: `a.b` and, as names of `a.b` may be modules, `a.b.name`."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def cycles(arrows: set[Arrow]) -> tuple[tuple[str, ...], ...]:
    """The groups of rooms that reach each other."""
    rooms = sorted({room for arrow in arrows for room in arrow})
    reached = {room: _reached(room, arrows) for room in rooms}
    groups = {tuple(other for other in rooms if other in reached[room] and room in reached[other]) for room in rooms}
    return tuple(sorted(group for group in groups if group))


def _reached(room: str, arrows: set[Arrow]) -> set[str]:
    found: set[str] = set()
    waiting = [room]
    while waiting:
        current = waiting.pop()
        following = {target for source, target in arrows if source == current} - found
        found |= following
        waiting += following
    return found


def measured(revision: str | None) -> list[Package]:
    """All packages, of the working tree or of a commit."""
    if revision is None:
        return [count(CHECKOUT, name) for name in PACKAGES]
    archive = subprocess.run(["git", "archive", revision], cwd=CHECKOUT, capture_output=True, check=True).stdout
    with TemporaryDirectory() as scratch, tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(scratch, filter="data")
        return [count(Path(scratch), name) for name in PACKAGES]


def table(packages: list[Package]) -> list[str]:
    """The counts as Markdown."""
    lines = ["| package | rooms | files | lines | longest file | arrows | cycles |", "|---|---|---|---|---|---|---|"]
    for package in packages:
        groups = "; ".join(", ".join(group) for group in package.cycles) or "none"
        lines.append(
            f"| {package.name} | {package.rooms} | {package.files} | {package.lines:,} | {package.longest_file} "
            f"| {len(package.arrows)} | {groups} |"
        )
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--revision", metavar="REV")
    parser.add_argument("--arrows", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    packages = measured(options.revision)
    if options.json:
        print(json.dumps([asdict(package) for package in packages], indent=1))
        return 0
    print("\n".join(table(packages)))
    if options.arrows:
        for package in packages:
            print("\n".join((f"\n{package.name}", *(f"  {source} -> {target}" for source, target in package.arrows))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
