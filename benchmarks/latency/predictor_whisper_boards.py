"""Latencies of Whisper on Arm boards and phones: the calibrated analytic model against published measurements.

    python benchmarks/latency/predictor_whisper_boards.py --csv FILE [--fit FILE] [--rows] [--json]

FILE has the columns of `../shared/devices/measured_latencies.csv`, which is also what --fit is by default. Rows of
Whisper in --csv are predicted with constants fitted on those of --fit from *other chips* only: all boards with the
row's chip are left out (a Pi 400 with the Pi 4). What decides is public about the core (instruction set, clock, peak
per cycle, memory bandwidth, caches) and what other devices' rows say about the runtime. The column "all" is the same
with the chip's own rows in --fit too. Without --fit, and where that default is not there, the constants that are in
`results/predictor_whisper_boards.json` serve.

The factor is predicted / measured. For comparison on the same rows: FLOPs alone (one rate for everything, the median of
the other Arm chips' rows), and FLOPs over threads x clock x float32 peak (one share for everything, likewise).

Rows of an NPU or GPU, of no stage of inference, or of an unknown core are listed with the reason. Rows whose size of
model is not stated are predicted for base and counted apart. --rows lists every row. With --json, all goes to stdout.
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from boards_fit import Agreement, Fitted, agreement, chip_group, fit, tells_about_speed
from boards_model import PRIORS
from boards_reasons import is_far, reason
from boards_rows import Case, Refused, is_whisper, read_case, read_rows

from common.errors import InputError, WhisperfitError

ROOT = Path(__file__).resolve().parents[2]
DEFAULT_FIT = ROOT.parent / "shared" / "devices" / "measured_latencies.csv"
RESULTS = ROOT / "benchmarks" / "results" / "predictor_whisper_boards.json"
NOTHING_LEFT_OUT = ""
PREDICTORS = ("model", "all", "flops", "peak")


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """A row with predictions in milliseconds: `model` is the one without the row's chip."""

    case: Case
    model: float
    all: float
    flops: float | None
    peak: float | None
    rows_of_family: int

    def factor(self, predictor: str) -> float | None:
        value = getattr(self, predictor)
        return None if value is None else value / self.case.measured_ms

    @property
    def has_known_size(self) -> bool:
        return not any("size not stated" in text for text in self.case.assumed)


def whisper_cases(file: Path) -> tuple[list[Case], list[Refused]]:
    """Raises InputError for a file without rows of Whisper."""
    found = [read_case(row) for row in read_rows(file) if is_whisper(row)]
    if not found:
        raise InputError(f"{file}: no rows of Whisper (column model)")
    return [c for c in found if isinstance(c, Case)], [c for c in found if isinstance(c, Refused)]


@dataclass(frozen=True, kw_only=True)
class Fits:
    """Constants by the chip that was left out; `family_rows`: rows fitted on, by runtime and chip."""

    by_chip: Mapping[str, Fitted]
    family_rows: Mapping[str, Mapping[str, int]]

    @classmethod
    def of(cls, cases: Sequence[Case]) -> "Fits":
        chips = [NOTHING_LEFT_OUT, *dict.fromkeys(chip_group(case) for case in cases)]
        counts: dict[str, dict[str, int]] = {}
        for (family, chip), count in Counter(
            (case.family, chip_group(case)) for case in cases if tells_about_speed(case)
        ).items():
            counts.setdefault(family, {})[chip] = count
        by_chip = {chip: fit([case for case in cases if chip_group(case) != chip]) for chip in chips}
        return cls(by_chip=by_chip, family_rows=counts)

    @classmethod
    def read(cls, file: Path) -> "Fits":
        """Of an earlier run's results."""
        text = json.loads(file.read_text(encoding="utf-8"))["fits"]
        return cls(
            by_chip={chip: Fitted(**fitted) for chip, fitted in text["by_chip"].items()},
            family_rows=text["family_rows"],
        )

    def without(self, case: Case) -> Fitted:
        return self.by_chip.get(chip_group(case), self.by_chip[NOTHING_LEFT_OUT])

    def predict(self, case: Case) -> Prediction:
        fitted = self.without(case)
        counts = self.family_rows.get(case.family, {})
        return Prediction(
            case=case,
            model=fitted.model_ms(case),
            all=self.by_chip[NOTHING_LEFT_OUT].model_ms(case),
            flops=fitted.flops_ms(case),
            peak=fitted.peak_ms(case),
            rows_of_family=sum(count for chip, count in counts.items() if chip != chip_group(case)),
        )


def factors(predictions: Iterable[Prediction], predictor: str) -> list[float]:
    found = (prediction.factor(predictor) for prediction in predictions)
    return [factor for factor in found if factor is not None]


def groups(predictions: Iterable[Prediction], *, by_device: bool) -> dict[str, list[Prediction]]:
    """By device and runtime, or by runtime's family."""
    grouped: dict[str, list[Prediction]] = {}
    for prediction in predictions:
        row = prediction.case.row
        key = f"{row['device']}, {row['runtime']}" if by_device else prediction.case.family
        grouped.setdefault(key, []).append(prediction)
    return grouped


def summary(predictions: Sequence[Prediction]) -> dict[str, Agreement | None]:
    return {predictor: agreement(factors(predictions, predictor)) for predictor in PREDICTORS}


def table(grouped: Mapping[str, Sequence[Prediction]]) -> list[str]:
    lines = [
        "| device, runtime | rows | median factor | from | to | all | FLOPs alone | FLOPs / peak |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, members in grouped.items():
        own = factors(members, "model")
        others = [_median_text(factors(members, predictor)) for predictor in PREDICTORS[1:]]
        size = "" if members[0].has_known_size else " (size not stated)"
        cells = [name + size, str(len(members)), f"{median(own):.2f}", f"{min(own):.2f}", f"{max(own):.2f}", *others]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _median_text(values: Sequence[float]) -> str:
    return f"{median(values):.2f}" if values else "-"


def agreement_lines(title: str, predictions: Sequence[Prediction]) -> list[str]:
    lines = [
        f"| {title} | rows | median factor | typical | within 1.5x | within 2x | 90 % within |",
        "|---|---|---|---|---|---|---|",
    ]
    titles = {
        "model": "model, chip left out",
        "all": "model, chip's rows too",
        "flops": "FLOPs alone",
        "peak": "FLOPs / peak",
    }
    for predictor, found in summary(predictions).items():
        if found is not None:
            lines.append(
                f"| {titles[predictor]} | {found.rows} | {found.median_factor:.2f} | {found.typical:.2f} | "
                f"{found.within_1_5:.0%} | {found.within_2:.0%} | {found.ninety:.2f} |"
            )
    return lines


def row_line(prediction: Prediction) -> str:
    case, row = prediction.case, prediction.case.row
    assumed = f" [{'; '.join(case.assumed)}]" if case.assumed else ""
    return (
        f"{prediction.model / case.measured_ms:6.2f}  {prediction.model:9.0f} / {case.measured_ms:9.0f} ms  "
        f"{row['device']}, {row['runtime']}, {case.model}, {row['stage']}; "
        f"{case.threads} threads of {case.chip.name}{assumed}"
    )


def reasons(predictions: Iterable[Prediction]) -> list[str]:
    """A sentence for each device, runtime and reason."""
    found: dict[tuple[str, str], list[float]] = {}
    for prediction in predictions:
        factor = prediction.model / prediction.case.measured_ms
        if is_far(factor):
            row = prediction.case.row
            sentence = reason(prediction.case, factor, prediction.rows_of_family)
            found.setdefault((f"{row['device']}, {row['runtime']}", sentence), []).append(factor)
    return [
        f"- {where} ({len(values)} rows, {min(values):.2f} to {max(values):.2f}): {sentence}"
        if len(values) > 1
        else f"- {where} ({values[0]:.2f}): {sentence}"
        for (where, sentence), values in found.items()
    ]


def print_report(predictions: Sequence[Prediction], refused: Sequence[Refused], *, every_row: bool) -> None:
    known = [prediction for prediction in predictions if prediction.has_known_size]
    print(*table(groups(predictions, by_device=True)), "", sep="\n")
    arm = [prediction for prediction in known if prediction.case.chip.is_arm]
    print(*agreement_lines("all, Arm", arm), "", sep="\n")
    for family, members in groups(known, by_device=False).items():
        print(*agreement_lines(family, members), "", sep="\n")
    print("Off by more than 1.5 times:", *(reasons(predictions) or ["- none"]), "", sep="\n")
    counts = Counter((unsupported_reason.row["runtime"], unsupported_reason.reason) for unsupported_reason in refused)
    print("Not predicted:", *(f"- {n} rows of {runtime}: {why}" for (runtime, why), n in counts.items()), sep="\n")
    if not counts:
        print("- none")
    if every_row:
        print("", *map(row_line, predictions), sep="\n")


def as_json(predictions: Sequence[Prediction], refused: Sequence[Refused], fits: Fits) -> dict[str, Any]:
    known = [prediction for prediction in predictions if prediction.has_known_size]
    by_family = groups(known, by_device=False)
    return {
        "arm": _plain(summary([prediction for prediction in known if prediction.case.chip.is_arm])),
        "all": _plain(summary(known)),
        "by_runtime": {family: _plain(summary(members)) for family, members in by_family.items()},
        "off_by_more_than_1.5": reasons(predictions),
        "rows": [_row_json(prediction) for prediction in predictions],
        "not_predicted": [
            {"device": r.row["device"], "runtime": r.row["runtime"], "stage": r.row["stage"], "reason": r.reason}
            for r in refused
        ],
        "constants": {
            name: {
                "prior": asdict(prior),
                "fitted": fits.by_chip[NOTHING_LEFT_OUT].constants[name],
                "fitted_log_std": fits.by_chip[NOTHING_LEFT_OUT].log_stds[name],
            }
            for name, prior in PRIORS.items()
        },
        "fits": asdict(fits),
    }


def _plain(agreements: Mapping[str, Agreement | None]) -> dict[str, Any]:
    return {predictor: asdict(found) for predictor, found in agreements.items() if found is not None}


def _row_json(prediction: Prediction) -> dict[str, Any]:
    case, row = prediction.case, prediction.case.row
    return {
        **{column: row[column] for column in ("device", "runtime", "model", "precision", "stage", "source")},
        "chip": case.chip.name,
        "threads": case.threads,
        "assumed": list(case.assumed),
        "measured_ms": case.measured_ms,
        **{f"{predictor}_factor": prediction.factor(predictor) for predictor in PREDICTORS},
    }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--csv", type=Path, required=True, metavar="FILE")
    parser.add_argument("--fit", type=Path, metavar="FILE")
    parser.add_argument("--rows", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    try:
        cases, refused = whisper_cases(options.csv)
        fit_file = options.fit or DEFAULT_FIT
        fits = Fits.of(whisper_cases(fit_file)[0]) if options.fit or fit_file.exists() else Fits.read(RESULTS)
    except WhisperfitError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    predictions = [fits.predict(case) for case in cases]
    if options.json:
        print(json.dumps(as_json(predictions, refused, fits), indent=1))
    else:
        print_report(predictions, refused, every_row=options.rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
