"""Whether `transcribe_cpp_files.py` makes what transcribe.cpp's own quantiser makes of the same float16 file.

    python benchmarks/peers/same_as_its_tool.py TRANSCRIBE_QUANTIZE [--model tiny.en]

TRANSCRIBE_QUANTIZE is that program, built from its source: cmake -B build -DTRANSCRIBE_BUILD_TOOLS=ON, then
cmake --build build --target transcribe-quantize. Prints a line for each type; ends with 1 where a tensor differs.
"""

import argparse
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import transcribe_cpp_files
from gguf import GGUFReader

from compression.export.transcribe_cpp import FILE_NAME
from compression.whisper.load import LoadedModel, load_model


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("quantiser", type=Path)
    parser.add_argument("--model", default="tiny.en")
    options = parser.parse_args()
    model = load_model(options.model)
    different = [difference for bits in (8, 5, 4) for difference in compared(bits, options.quantiser, model)]
    return 1 if different else 0


def compared(bits: int, quantiser: Path, model: LoadedModel) -> list[str]:
    """The names of the tensors that differ in type or bytes."""
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        transcribe_cpp_files.floats(model, folder)
        floats = (folder / FILE_NAME).rename(folder / "floats.gguf")
        command = [quantiser, floats, folder / "theirs.gguf", "--quant", f"Q{bits}_0"]
        subprocess.run(command, check=True, capture_output=True)
        transcribe_cpp_files.blocks(bits, model, folder)
        ours, theirs = ({t.name: t for t in GGUFReader(folder / name).tensors} for name in (FILE_NAME, "theirs.gguf"))
        different = [
            name
            for name in ours.keys() | theirs.keys()
            if name not in ours
            or name not in theirs
            or ours[name].tensor_type != theirs[name].tensor_type
            or not np.array_equal(ours[name].data, theirs[name].data)
        ]
        print(f"q{bits}_0: {len(theirs)} tensors, {len(different)} differ {different[:5]}")
    return different


if __name__ == "__main__":
    sys.exit(main())
