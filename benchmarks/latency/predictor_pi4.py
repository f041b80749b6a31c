"""Latencies of encoder-decoder transformers on a Raspberry Pi 4: an analytic model against HAT's measurements.

    python benchmarks/latency/predictor_pi4.py --csv FILE [--fit-rows 20] [--vocabulary 32768] [--seed 0]
        [--plot FILE.svg] [--json]

FILE has the columns of HAT's latency files (`../shared/devices/hat_transformers_pi4.csv`). The model is of the kind
that prices boards nobody here can touch: time = sum of work x rate, with work counted from the shapes (`hat.py`) and
rates that are not negative. Its rates, two of the encoder and five of the decoder, are fitted on `--fit-rows` rows (at
most half of the file) by Huber's loss of the relative errors (`devices/fitting.py`). Every other row is predicted.

The rows to fit on are chosen by shape alone, as a D-optimal design of a random quarter of the rows (`prediction.py`).
All is done for 50 such choices, of the seeds from `--seed` on; the table gives medians and the worst. The first figures
are those of all rows; below them, rows with a latency of more than twice the file's median are left out of what is
predicted, never of what is fitted on.

For comparison, fitted on the same rows in the same way: FLOPs times a rate; the same and a constant. `--vocabulary`,
which the file does not hold, is used only there. "least possible" is the least MAPE that any function of the encoder's
width, layers and mean FFN width can have. The table goes to stdout, or with --json all figures.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
from hat import VOCABULARY, Part, read_parts
from numpy.typing import NDArray
from prediction import Rows, informative_rows, least_mape, score
from scatter import Group, Panel, scatter_svg

from common.errors import WhisperfitError
from common.files import write_text_whole
from devices.fitting import fit_rates

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

CHOICES = 50
HUBER = 0.02
"""Relative error from which a row counts linearly. The decoder's typical error is 1 %, the encoder's 4 %."""
OUTLIER = 2.0
"""Times the file's median latency."""
TARGET_MAPE = {"encoder": 0.10, "decoder": 0.05}
MODEL = "whisperfit"


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What was done. `seed`: of the first choice."""

    file: str
    sha256: str
    transformers: int
    fit_rows: int
    choices: int
    seed: int


@dataclass(frozen=True, kw_only=True)
class Summary:
    """One predictor over all choices: medians, and the worst MAPE. `rows`: predicted, in the first choice."""

    predictor: str
    rows: int
    mape: float
    mape_worst: float
    median_ape: float
    within_10_percent: float
    spearman: float | None


@dataclass(frozen=True, kw_only=True)
class Constant:
    """A fitted rate: of the first choice, and the middle 90 % of all. None: the fit found no cost."""

    name: str
    meaning: str
    unit: str
    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, kw_only=True)
class PartReport:
    """`fit_mape`: on the rows fitted on, median over the choices. `without_outliers`: empty if there are none."""

    part: str
    target_mape: float
    least_possible_mape: float | None
    fit_mape: float
    all_rows: tuple[Summary, ...]
    outliers: int
    without_outliers: tuple[Summary, ...]
    constants: tuple[Constant, ...]


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        parts = read_parts(options.csv, options.vocabulary)
        choices = fit_choices(parts, options.fit_rows, options.seed)
        reports = [report(part, choices) for part in parts]
        if options.plot:
            write_text_whole(options.plot, plot(parts, choices[0]))
    except (WhisperfitError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    facts = Facts(
        file=options.csv.name,
        sha256=sha256(options.csv.read_bytes()).hexdigest(),
        transformers=len(parts[0].measured_ms),
        fit_rows=len(choices[0]),
        choices=len(choices),
        seed=options.seed,
    )
    if options.json:
        print(json.dumps(asdict(facts) | {"parts": [asdict(report) for report in reports]}, indent=2))
    else:
        print("\n".join(text_lines(facts, reports)))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--csv", type=Path, required=True, help="latency file of HAT's")
    parser.add_argument("--fit-rows", type=_positive, default=20, help="rows to fit the constants on (20)")
    parser.add_argument("--vocabulary", type=_positive, default=VOCABULARY, help="only for FLOPs (32768)")
    parser.add_argument("--seed", type=_natural, default=0, help="of the first choice of rows (0)")
    parser.add_argument("--plot", type=Path, help="write predicted against measured to this SVG")
    parser.add_argument("--json", action="store_true", help="all figures as JSON")
    return parser


def _positive(text: str) -> int:
    return _at_least(1, text)


def _natural(text: str) -> int:
    return _at_least(0, text)


def _at_least(least: int, text: str) -> int:
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least {least}, but is {text!r}")
    return int(text)


def fit_choices(parts: Sequence[Part], fit_rows: int, seed: int) -> list[Rows]:
    count = min(fit_rows, len(parts[0].measured_ms) // 2)
    works = [part.work for part in parts]
    return [informative_rows(works, count, np.random.default_rng(seed + index)) for index in range(CHOICES)]


def report(part: Part, choices: Sequence[Rows]) -> PartReport:
    measured, flops = part.measured_ms, part.multiply_adds
    designs = {
        MODEL: part.work,
        "FLOPs": flops[:, None],
        "FLOPs and a constant": np.column_stack([flops, np.ones_like(flops)]),
    }
    rates = {name: fitted(work, measured, choices) for name, work in designs.items()}
    predictions = {name: [work @ rate for rate in rates[name]] for name, work in designs.items()}
    usual = measured <= OUTLIER * np.median(measured)

    def summaries(kept: Mask) -> tuple[Summary, ...]:
        rests = [left(kept, rows) for rows in choices]
        return tuple(summary(name, predictions[name], measured, rests) for name in designs)

    fits = [score(all_[rows], measured[rows]) for all_, rows in zip(predictions[MODEL], choices, strict=True)]
    return PartReport(
        part=part.name,
        target_mape=TARGET_MAPE[part.name],
        least_possible_mape=least_mape(part.cells, measured) if part.name == "encoder" else None,
        fit_mape=float(np.median([fit.mape for fit in fits])),
        all_rows=summaries(np.ones_like(usual)),
        outliers=int(np.sum(~usual)),
        without_outliers=() if usual.all() else summaries(usual),
        constants=constants(part, np.array(rates[MODEL])),
    )


def fitted(work: Array, times: Array, choices: Sequence[Rows]) -> list[Array]:
    return [fit_rates(work[rows], times[rows], huber=HUBER) for rows in choices]


def left(kept: Mask, rows: Rows) -> Mask:
    """What is kept and not fitted on. Never empty: more than half of a file is at most twice its median."""
    rest = kept.copy()
    rest[rows] = False
    return rest


def summary(name: str, predictions: Sequence[Array], measured: Array, rests: Sequence[Mask]) -> Summary:
    scores = [score(prediction[rest], measured[rest]) for prediction, rest in zip(predictions, rests, strict=True)]
    correlations = [score.spearman for score in scores if score.spearman is not None]
    return Summary(
        predictor=name,
        rows=int(rests[0].sum()),
        mape=float(np.median([score.mape for score in scores])),
        mape_worst=max(score.mape for score in scores),
        median_ape=float(np.median([score.median_ape for score in scores])),
        within_10_percent=float(np.median([score.within_10_percent for score in scores])),
        spearman=float(np.median(correlations)) if correlations else None,
    )


def constants(part: Part, rates: Array) -> tuple[Constant, ...]:
    """`rates` has shape (choices, terms)."""
    found = []
    for term, column in zip(part.terms, rates.T, strict=True):
        ends = [term.shown(float(rate)) for rate in np.quantile(column, (0.05, 0.95))]
        low, high = reversed(ends) if term.inverse else ends
        found.append(
            Constant(
                name=term.name,
                meaning=term.meaning,
                unit=term.unit,
                value=term.shown(float(column[0])),
                low=low,
                high=high,
            )
        )
    return tuple(found)


def plot(parts: Sequence[Part], rows: Rows) -> str:
    """Of the first choice: the rows predicted, and those fitted on."""
    panels = []
    for part in parts:
        predicted = part.work @ fitted(part.work, part.measured_ms, [rows])[0]
        rest = left(np.ones(len(predicted), dtype=bool), rows)
        groups = tuple(
            Group(
                label=f"{which.sum()} {label}",
                colour=colour,
                opacity=opacity,
                measured_ms=part.measured_ms[which],
                predicted_ms=predicted[which],
            )
            for which, label, colour, opacity in (
                (rest, "predicted", "#2a6fbb", 0.4),
                (~rest, "fitted on", "#d1495b", 1.0),
            )
        )
        panels.append(Panel(title=f"{part.name.capitalize()}, Raspberry Pi 4", groups=groups))
    return scatter_svg(panels)


def text_lines(facts: Facts, reports: Sequence[PartReport]) -> list[str]:
    lines = [
        f"{facts.file}: {facts.transformers} transformers; constants fitted on {facts.fit_rows} of them, "
        f"{facts.choices} choices from seed {facts.seed}",
        "MAPE: median and worst of the choices; the other columns are medians",
    ]
    for report in reports:
        lines += ["", *_part_lines(report)]
    return lines


def _part_lines(report: PartReport) -> list[str]:
    fit = f"on the rows fitted on {100 * report.fit_mape:.2f} %"
    lines = [f"{report.part}, target: MAPE under {100 * report.target_mape:.0f} %; {fit}"]
    if report.least_possible_mape is not None:
        lines.append(f"  least possible from width, layers and FFN, all rows: {100 * report.least_possible_mape:.2f} %")
    lines.append(f"  {'':22}{'rows':>16}{'MAPE %':>8}{'worst':>7}{'median %':>10}{'+-10 %':>8}{'Spearman':>10}")
    lines += [_summary_line(each, "all") for each in report.all_rows]
    lines += [_summary_line(each, f"without {report.outliers}") for each in report.without_outliers]
    lines.append("  constants (first choice; middle 90 % of the choices):")
    return lines + [_constant_line(each) for each in report.constants]


def _summary_line(summary: Summary, which: str) -> str:
    rows = f"{summary.rows} {which}"
    spearman = "-" if summary.spearman is None else f"{summary.spearman:.3f}"
    return (
        f"  {summary.predictor:22}{rows:>16}{100 * summary.mape:8.2f}{100 * summary.mape_worst:7.2f}"
        f"{100 * summary.median_ape:10.2f}{100 * summary.within_10_percent:8.1f}{spearman:>10}"
    )


def _constant_line(constant: Constant) -> str:
    value, low, high = (
        "none" if each is None else f"{each:.3g}" for each in (constant.value, constant.low, constant.high)
    )
    return f"    {constant.name:9} {value:>6} {constant.unit:17} ({low} to {high})  {constant.meaning}"


if __name__ == "__main__":
    sys.exit(main())
