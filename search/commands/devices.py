"""`whisperfit devices`: the known devices, or every number about one of them with its source."""

import json
import sys
from dataclasses import asdict, dataclass

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from devices.facts import DeviceDescription, NamedFact, ProfileSource, RuntimeSupport
from devices.profile import DeviceProfile, known_profiles, load_description, load_profile


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceSummary:
    """One line of the overview."""

    name: str
    title: str
    cores: str
    ram_mb: float
    ram_available_mb: float
    runtime: str
    source: ProfileSource


def devices_overview() -> tuple[DeviceSummary, ...]:
    """The devices that come with whisperfit, by name."""
    return tuple(_summary(name, load_description(name)) for name in known_profiles())


def _summary(name: str, description: DeviceDescription) -> DeviceSummary:
    return DeviceSummary(
        name=name,
        title=description.title,
        cores=description.cores_summary,
        ram_mb=description.facts.ram_mb.value,
        ram_available_mb=description.facts.ram_available_mb.value,
        runtime=description.runtime.name,
        source=description.source,
    )


def show_devices(name: str | None, as_json: bool) -> None:
    """Print the overview, or with `name` (or a path to a TOML) one device; JSON is one object."""
    if name is None:
        _show_overview(devices_overview(), as_json=as_json)
    else:
        _show_profile(load_profile(name), as_json=as_json)


def _print_json(value: object) -> None:
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


def _show_overview(summaries: tuple[DeviceSummary, ...], *, as_json: bool) -> None:
    if as_json:
        _print_json({"devices": [asdict(summary) for summary in summaries]})
        return
    table = _table("name", "device", "RAM MB (app)", "runtime", "latencies")
    for s in summaries:
        cores = escape(s.cores).replace(" + ", "\n")
        device = f"{escape(s.title)}\n[dim]{cores}[/dim]"
        table.add_row(s.name, device, f"{s.ram_mb:,.0f} ({s.ram_available_mb:,.0f})", s.runtime, s.source)
    Console().print(table)


def _show_profile(profile: DeviceProfile, *, as_json: bool) -> None:
    facts = profile.description.named_facts()
    if as_json:
        _print_json(
            {
                **asdict(_summary(profile.name, profile.description)),
                "note": profile.description.note,
                "digest": profile.digest,
                "runtime": profile.runtime.model_dump(mode="json"),
                "facts": [{"name": named.name, **named.fact.model_dump(mode="json")} for named in facts],
                "latency_table_rows": len(profile.table.rows),
                "warnings": list(profile.warnings),
            }
        )
        return
    console = Console()
    console.print(f"[bold]{escape(profile.name)}[/bold]  {escape(profile.title)}")
    console.print(escape(profile.description.note))
    console.print(_facts_table(facts))
    console.print(_runtime_table(profile.runtime))
    rows = f"{len(profile.table.rows):,} rows, {profile.source}"
    console.print(f"Latency table: {rows}. Profile digest: {profile.digest[:12]}", highlight=False)
    for warning in profile.warnings:
        console.print(f"Warning: {escape(warning)}", highlight=False)


def _table(first: str, *others: str) -> Table:
    """A table whose first column, a name to type or to search, is never cut."""
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column(first, no_wrap=True)
    for header in others:
        table.add_column(header, overflow="fold")
    return table


def _facts_table(facts: tuple[NamedFact, ...]) -> Table:
    table = _table("number", "value", "kind", "source")
    for named in facts:
        fact = named.fact
        table.add_row(named.name, f"{fact.value:,.6g} {fact.unit}", fact.kind, escape(fact.source))
    return table


def _runtime_table(runtime: RuntimeSupport) -> Table:
    table = _table("runtime", runtime.name)
    for key, value in runtime.model_dump(exclude={"name"}).items():
        shown = ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
        table.add_row(key, escape(shown))
    return table
