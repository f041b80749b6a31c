"""How long searches take to the constrained optimum, in a modelled world (`world.py`, `methods.py`).

    python benchmarks/search/search_efficiency.py --seeds 20 --plot benchmarks/results/search_efficiency.svg \\
        > benchmarks/results/search_efficiency.md

Each method searches the fine space of `--run` for the cheapest recipe within +10 % WER. What was done is kept in
`--rows` by method and seed: the same command goes on after the last one. `--methods` runs some only, `--report` none.

found: of all that a method had judged or scored, the cheapest whose expected rise is within the budget. pick: what it
would have given its user by then. Expected: k x divergence; true: with what is the recipe's own. The optimum is the
cheapest recipe whose expected rise is within the budget, by a search of the noise-free world from the run's front, at
the end a descent by single changes; whatever a method found that is better takes its place.
"""

import argparse
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from sys import stderr

import numpy as np
from curves import Curve, curves_svg
from methods import REFERENCE, SAMPLERS, Event, Trace, ours, peer
from world import World

from search.engines.proposals import single_steps
from search.records.study_store import StudyStore
from search.space.space import Genes

ROOT = Path(__file__).parents[2]
OURS = ("ours", "ours, no model", "ours, no race", "ours, no start", "ours, no bank")
PEERS = (*SAMPLERS, "NNI TPE")
HOURS = dict.fromkeys(OURS, 1.2) | dict.fromkeys(PEERS, 6.0) | {"GP": 1.0}
"""Of simulated time; GP's proposals take so long that more would be days of this machine's time."""
OPTIMUM = "optimum"
WITHIN = (0.10, 0.05, 0.01)
VOLUMES = (0.95, 0.99)
COLOURS = ("#d62728", "#ff9896", "#e377c2", "#bcbd22", "#8c564b", "#7f7f7f", "#2ca02c", "#1f77b4", "#9467bd", "#ff7f0e")
Point = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One search. `events`: those that improved its front of objective and expected rise, and its picks."""

    method: str
    seed: int
    recipes: int
    spent: Mapping[str, float]
    events: Sequence[Event]

    @property
    def seconds(self) -> float:
        return sum(self.spent.values())


def main() -> None:
    options = _parser().parse_args()
    rows, world = read(options.rows), World(options.run)
    if not options.report:
        done = {(row.method, row.seed) for row in rows}
        for method, seed in [(OPTIMUM, 0), *((m, s) for s in range(options.seeds) for m in options.methods)]:
            if (method, seed) not in done:
                row = run(method, world.seeded(seed), seed, options)
                rows.append(row)
                with options.rows.open("a", encoding="utf-8") as handle:
                    handle.write(json.dumps(_plain(row)) + "\n")
                print(
                    f"{method}, seed {seed}: {row.seconds / 3600:.2f} h, {row.recipes} recipes", file=stderr, flush=True
                )
    best = optimum(rows, world.allowed)
    print(report(rows, world, best))
    if options.plot:
        options.plot.write_text(curves_svg(curves(rows, best), least_s=30.0, optimum=best), encoding="utf-8")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=ROOT / "results/seventh")
    parser.add_argument("--rows", type=Path, default=ROOT / "benchmarks/results/search_efficiency.jsonl")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--methods", nargs="+", default=["ours", *PEERS, *OURS[1:]], choices=[*OURS, *PEERS], metavar="METHOD"
    )
    parser.add_argument("--hours", type=float, help="of simulated time, instead of each method's own")
    parser.add_argument("--evaluations", type=int, default=20000, help="of the search for the optimum")
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--report", action="store_true", help="only of what is in --rows")
    return parser


def read(file: Path) -> list[Row]:
    """What was done before."""
    if not file.exists():
        return []
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return [Row(**(line | {"events": [_event(values) for values in line["events"]]})) for line in lines]


def _event(values: Sequence[float | str]) -> Event:
    seconds, kind, objective, expected, true = values
    return Event(
        seconds=float(seconds), kind=str(kind), objective=float(objective), expected=float(expected), true=float(true)
    )


def _plain(row: Row) -> dict[str, object]:
    def short(value: float | str) -> float | str:
        return value if isinstance(value, str) else float(f"{value:.6g}")

    events = [[short(value) for value in asdict(event).values()] for event in row.events]
    return asdict(row) | {"spent": {what: round(s, 3) for what, s in row.spent.items()}, "events": events}


def run(method: str, world: World, seed: int, options: argparse.Namespace) -> Row:
    """One search of one world."""
    if method == OPTIMUM:
        trace = search_of_truth(world, options.run, options.evaluations)
    else:
        limit_s = 3600 * (options.hours or HOURS[method])
        trace = (ours if method in OURS else peer)(world, method, seed=seed, limit_s=limit_s)
    kinds = [event.kind for event in trace.events]
    recipes = kinds.count("judged") or kinds.count("scored")
    return Row(method=method, seed=seed, recipes=recipes, spent=trace.spent, events=list(progress(trace.events)))


def progress(events: Iterable[Event]) -> Iterator[Event]:
    """Picks, and what improves the front of all of its kind."""
    fronts: dict[str, list[Point]] = {}
    for event in events:
        point, front = (event.objective, event.expected), fronts.setdefault(event.kind, [])
        if event.kind == "pick":
            yield event
        elif not any(_beats(member, point) for member in front):
            fronts[event.kind] = [member for member in front if not _beats(point, member)] + [point]
            yield event


def _beats(one: Point, other: Point) -> bool:
    return one[0] <= other[0] and one[1] <= other[1]


# the optimum


def search_of_truth(world: World, run: Path, evaluations: int) -> Trace:
    """Children of a front of objective and expected rise, half of them of members near the budget, then a descent."""
    rng, trace = np.random.default_rng(0), Trace()
    choices = {name: values for name, values in world.space.choices.items() if len(values) > 1}
    front: list[tuple[Point, Genes]] = []
    known: set[str] = set()

    def judge(genes: Genes) -> bool:
        """Whether the recipe is new and on the front."""
        nonlocal front
        recipe = world.space.decode(genes)
        if recipe.id in known or world.rejection(recipe):
            return False
        known.add(recipe.id)
        point = world.objective(recipe), world.expected_rise(recipe)
        if point[1] > REFERENCE[1] or any(_beats(other, point) for other, _ in front):
            return False
        front = [(other, g) for other, g in front if not _beats(point, other)] + [(point, genes)]
        trace.note(world, "judged", recipe)
        return True

    for trial in StudyStore(run / "study.db").trials():
        genes = world.space.encode(trial.recipe)
        if genes is not None:
            judge(genes)
    for _ in range(evaluations):
        front.sort(key=lambda pair: pair[0])
        within = [i for i, (point, _) in enumerate(front) if point[1] <= world.allowed]
        low, high = (within[0] - 3, within[0] + 3) if rng.random() < 0.6 else (0, len(front))
        parent = front[int(rng.integers(max(low, 0), min(high, len(front))))][1]
        genes = dict(parent)
        for name in rng.choice(list(choices), size=int(rng.integers(1, 4)), replace=False):
            index = choices[name].index(genes[name]) + int(rng.choice([-1, 1]))
            genes[name] = choices[name][min(max(index, 0), len(choices[name]) - 1)]
        judge(genes)
    improved = True
    while improved:
        best = min((pair for pair in front if pair[0][1] <= world.allowed), key=lambda pair: pair[0])
        judged = [judge(genes) for genes in single_steps(world.space, best[1])]
        improved = any(judged)
    return trace


def optimum(rows: Sequence[Row], allowed: float) -> float:
    """The smallest objective that anything found within the budget."""
    return min(event.objective for row in rows for event in row.events if event.expected <= allowed)


# what follows from the rows


def first_found(row: Row, most: float, allowed: float) -> float:
    """Seconds until something within the budget costs at most so much; infinite where nothing does."""
    return _first(e.seconds for e in row.events if e.kind != "pick" and e.expected <= allowed and e.objective <= most)


def first_pick(row: Row, most: float, allowed: float) -> float:
    """The same of the pick."""
    return _first(e.seconds for e in row.events if e.kind == "pick" and e.expected <= allowed and e.objective <= most)


def _first(seconds: Iterator[float]) -> float:
    return next(seconds, float("inf"))


def volume(points: Iterable[Point]) -> float:
    """What is dominated by the points up to REFERENCE."""
    total, height = 0.0, REFERENCE[1]
    for objective, rise in sorted(points):
        if objective < REFERENCE[0] and rise < height:
            total += (REFERENCE[0] - objective) * (height - rise)
            height = rise
    return total


def first_volume(row: Row, least: float) -> float:
    """Seconds until all that was found dominates so much."""
    points: list[Point] = []
    for event in row.events:
        if event.kind != "pick":
            points.append((event.objective, event.expected))
            if volume(points) >= least:
                return event.seconds
    return float("inf")


def last_pick(row: Row) -> Event | None:
    return next((event for event in reversed(row.events) if event.kind == "pick"), None)


def report(rows: Sequence[Row], world: World, best: float) -> str:
    """All tables, in Markdown."""
    by_method = {m: [row for row in rows if row.method == m] for m in (*OURS, *PEERS)}
    by_method = {method: found for method, found in by_method.items() if found}
    whole = volume((e.objective, e.expected) for row in rows for e in row.events if e.kind != "pick")
    lines = [
        "# Search efficiency in a modelled world",
        "",
        *_world_lines(world, best),
        "",
        "## Time until it was found",
        "",
        "Minutes of everything counted, median of the seeds; `> x`: at the end, after x, the median had not found it.",
        "Found: among all that was judged or scored. Volume: hypervolume, as a share of what all methods and the "
        "search for the optimum found together.",
        "",
        "| method | seeds | "
        + " | ".join(f"within {share:.0%}" for share in WITHIN)
        + " | "
        + " | ".join(f"{share:.0%} of volume" for share in VOLUMES)
        + " |",
        "|---|---|" + "---|" * (len(WITHIN) + len(VOLUMES)),
    ]
    for method, found in by_method.items():
        times = [[first_found(row, best * (1 + share), world.allowed) for row in found] for share in WITHIN]
        times += [[first_volume(row, share * whole) for row in found] for share in VOLUMES]
        lines.append(f"| {method} | {len(found)} | " + " | ".join(_minutes(t, found) for t in times) + " |")
    lines += ["", *_ratio_lines(by_method, world, best), "", "## What was picked", ""]
    lines += [
        "Minutes until the pick was within the budget by its expected rise, and at most so much above the optimum; "
        "then the pick at the end: what it costs above the optimum (median), how often it is within the budget by its "
        "expected and by its true rise.",
        "",
        "| method | "
        + " | ".join(f"within {s:.0%}" for s in WITHIN)
        + " | at the end: cost | expected within | true within |",
        "|---|" + "---|" * (len(WITHIN) + 3),
    ]
    for method, found in by_method.items():
        times = [[first_pick(row, best * (1 + share), world.allowed) for row in found] for share in WITHIN]
        picks = [pick for row in found if (pick := last_pick(row))]
        lines.append(
            f"| {method} | "
            + " | ".join(_minutes(t, found) for t in times)
            + f" | {median(p.objective for p in picks) / best - 1:+.1%} "
            f"| {sum(p.expected <= world.allowed for p in picks)} of {len(picks)} "
            f"| {sum(p.true <= world.allowed for p in picks)} of {len(picks)} |"
        )
    lines += [
        "",
        "## Where the time went",
        "",
        "| method | hours | recipes | shares of the time |",
        "|---|---|---|---|",
    ]
    for method, found in by_method.items():
        whats = list(dict.fromkeys(what for row in found for what in row.spent))
        total = sum(row.seconds for row in found)
        shares = ", ".join(f"{what} {sum(r.spent.get(what, 0.0) for r in found) / total:.0%}" for what in whats)
        recipes = median(row.recipes for row in found)
        lines.append(f"| {method} | {median(r.seconds for r in found) / 3600:.2f} | {recipes:.0f} | {shares} |")
    return "\n".join(lines)


def _world_lines(world: World, best: float) -> list[str]:
    fit = world.held_out
    return [
        f"{world.facts.model} on {world.facts.device}, fine space ({world.space.combinations:.1e} combinations), "
        f"budget +{world.allowed:.0%} WER, optimum at an objective of {best:.4f}.",
        "",
        f"Divergence is fitted to {fit.recipes} recipes. Held out (five folds), its logarithmic error has a spread "
        f"(16th to 84th of a hundred, halved) of {fit.log_sd:.3f}, {fit.log_sd_near:.3f} for the {fit.near} recipes "
        f"between 0.01 and 0.1 nats a token; rank correlation {fit.rank:.3f} and {fit.rank_near:.3f}. The drawn part "
        f"is as large as the latter error. k is {world.slope:.2f}; {world.churn:.0%} of the original's errors "
        "go and others come in each recipe.",
    ]


def _ratio_lines(by_method: Mapping[str, Sequence[Row]], world: World, best: float) -> Iterator[str]:
    """Of the best peer's time to ours."""
    for share in WITHIN:
        medians = {
            m: (
                median(first_found(row, best * (1 + share), world.allowed) for row in rows),
                min(r.seconds for r in rows),
            )
            for m, rows in by_method.items()
        }
        peers = {m: medians[m] for m in PEERS if m in medians}
        if "ours" not in medians or not peers:
            return
        mine, name = medians["ours"][0], min(peers, key=lambda m: peers[m])
        if not np.isfinite(mine):
            yield f"- Within {share:.0%}: the median of ours did not find it."
        elif np.isfinite(peers[name][0]):
            yield f"- Within {share:.0%}: ours took {mine / peers[name][0]:.3f} of the time of the best peer, {name}."
        else:
            least = max(seconds for _, seconds in peers.values())
            yield (
                f"- Within {share:.0%}: no peer's median found it; ours took {mine / least:.3f} of the "
                f"{least / 3600:.0f} hours that the longest had."
            )


def _minutes(times: Sequence[float], rows: Sequence[Row]) -> str:
    middle = median(times)
    reached = sum(np.isfinite(times))
    whole = "" if reached == len(times) else f" ({reached} of {len(times)})"
    return (f"{middle / 60:.1f}" if np.isfinite(middle) else f"> {min(r.seconds for r in rows) / 60:.0f}") + whole


def curves(rows: Sequence[Row], best: float) -> list[Curve]:
    """Median objective of the pick over time, by method; 1 before there is one."""
    found = []
    for method, colour in zip((*OURS, *PEERS), COLOURS, strict=True):
        mine = [row for row in rows if row.method == method]
        if not mine:
            continue
        until = min(row.seconds for row in mine)
        times = list(map(float, np.geomspace(30.0, until, 200)))
        values = [float(np.median([_pick_at(row, t) for row in mine])) for t in times]
        found.append(Curve(label=method, colour=colour, seconds=times, values=values))
    return found


def _pick_at(row: Row, seconds: float) -> float:
    picks = [event.objective for event in row.events if event.kind == "pick" and event.seconds <= seconds]
    return picks[-1] if picks else 1.0


if __name__ == "__main__":
    main()
