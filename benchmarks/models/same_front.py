"""Does a search from a Hugging Face directory end with the front of the same model from elsewhere?

    python benchmarks/models/same_front.py --model base --folder /tmp/same > benchmarks/results/same_front.md

transformers saves the model, with a token added to its vocabulary, and the same search begins with both under one seed:
`whisperfit search --model base ...` and `whisperfit search --model FOLDER/base-saved ...`. Needs `transformers`.
"""

import argparse
import csv
import os
import subprocess
import sys
from pathlib import Path

from model_formats import as_transformers, save_with_added_token

COMPARED = ("recipe_id", "wer", "wer_confirm", "divergence", "size_mb", "objective")
ROOT = Path(__file__).parents[2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="base")
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--device", default="imx8mplus")
    parser.add_argument("--folder", type=Path, required=True, help="for the checkpoint and both runs; new or empty")
    options = parser.parse_args()
    saved = options.folder / f"{options.model}-saved"
    written = options.folder / f"{options.model}-exported"
    written.mkdir(parents=True)
    save_with_added_token(as_transformers(options.model, written), saved)
    fronts = {name: front(name, options) for name in (options.model, str(saved))}
    (one, other) = fronts.values()
    print(
        f"{options.model} and the same as transformers saves it, {options.trials} trials each, seed 0, sample speech.\n"
    )
    print("| | " + " | ".join(COMPARED) + " |\n|" + "---|" * (1 + len(COMPARED)))
    for name, rows in zip(("from its own format", "from Hugging Face's"), (one, other), strict=True):
        for row in rows:
            print(f"| {name} | " + " | ".join(row[column] for column in COMPARED) + " |")
    same = [[row[column] for column in COMPARED] for row in one] == [
        [row[column] for column in COMPARED] for row in other
    ]
    print(f"\n{'The same front.' if same else 'Not the same front.'}")


def front(model: str, options: argparse.Namespace) -> list[dict[str, str]]:
    out = options.folder / f"run of {Path(model).name}"
    asked = ["--device", options.device, "--data", "sample-search", "--confirm", "sample-confirm", "--language", "en"]
    ends = ["--trials", str(options.trials), "--threads", "1", "--seed", "0", "--out", str(out)]
    command = [sys.executable, "-m", "search", "search", "--model", model, *asked, *ends]
    ended = subprocess.run(command, check=False, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"})
    if ended.returncode not in {0, 3}:
        sys.exit(f"the search from {model} ended with {ended.returncode}")
    with (out / "pareto.csv").open(encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))


if __name__ == "__main__":
    main()
