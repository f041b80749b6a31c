"""By how much errors rise with divergence on speech of other kinds: k of `search/certainty.py`.

    python benchmarks/search/slope.py

From `benchmarks/results/other_speech.md` (errors, times the original's, all sets together) and the divergences that the
runs named there recorded. Runs up to the sixth, which measured divergence or counted loops otherwise, are left out.
"""

import csv
import re
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]
LEFT_OUT = ("third", "fourth", "fifth", "sixth")
ROW = re.compile(r"\| all together \| (?P<run>[\w-]+), trial (?P<trial>\d+), [\d.]+ MB \|\s*\| (?P<ratio>[\d.]+) \(")


def main() -> None:
    """Print the pairs, and the slope by least squares through 0."""
    found: dict[tuple[str, int], float] = {}
    for row in ROW.finditer((ROOT / "benchmarks/results/other_speech.md").read_text(encoding="utf-8")):
        # a recipe that was measured again under another rule stands first as it is now
        found.setdefault((row["run"], int(row["trial"])), float(row["ratio"]))
    pairs = [
        (run, trial, _divergence(run, trial), ratio - 1) for (run, trial), ratio in found.items() if run not in LEFT_OUT
    ]
    print("| recipe | divergence | rise % | rises a nat |\n|---|---|---|---|")
    for run, trial, divergence, rise in pairs:
        print(f"| {run}, trial {trial} | {divergence:.4f} | {100 * rise:.0f} | {rise / divergence:.1f} |")
    d, y = (np.array([pair[place] for pair in pairs]) for place in (2, 3))
    slope = d @ y / (d @ d)
    deviation = np.sqrt(((y - slope * d) ** 2).sum() / (len(d) - 1) / (d @ d))
    print(f"\nk = {slope:.2f}, give or take {deviation:.2f}; {len(pairs)} recipes")


def _divergence(run: str, trial: int) -> float:
    with (ROOT / "results" / run / "trials.csv").open(newline="", encoding="utf-8") as handle:
        return next(float(row["divergence"]) for row in csv.DictReader(handle) if int(row["trial"]) == trial)


if __name__ == "__main__":
    main()
