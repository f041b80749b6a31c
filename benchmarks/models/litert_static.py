"""What full static int8 by `ai_edge_quantizer` makes of the encoder: all that an i.MX 8M Plus's NPU could take at all.

    python benchmarks/models/litert_static.py --calibration MANIFEST --clips 8

Prints how many operators have integers only, and how far each output is from float32's on a clip that was not heard.
"""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from ai_edge_litert.interpreter import Interpreter
from ai_edge_litert.tools import flatbuffer_utils
from ai_edge_quantizer import quantizer, recipe

from common.errors import WhisperfitError
from common.log import tell
from compression.export.litert.artifact import converted_bytes
from compression.export.litert.modules import LONGEST_PROMPT, converted
from compression.techniques.compressed import Compressed
from runtime.mel import log_mel
from search.loading import load_speech, open_model

Floats = npt.NDArray[np.float32]


def integer_operators(file: Path) -> tuple[int, int]:
    """Operators of a file whose tensors are all integers, and all operators."""
    model = flatbuffer_utils.read_model(str(file))
    (graph,) = model.subgraphs
    kinds = [
        {graph.tensors[number].type for number in (*op.inputs, *op.outputs) if number >= 0} for op in graph.operators
    ]
    is_float = flatbuffer_utils.TensorType.FLOAT32
    return sum(is_float not in kind for kind in kinds), len(kinds)


def integer_outputs(file: Path, name: str, mel: Floats) -> dict[str, Floats]:
    """What the integer encoder makes of a mel spectrogram, as values."""
    encoder = Interpreter(str(file)).get_signature_runner(name)
    scale, zero = encoder.get_input_details()["mel"]["quantization"]
    codes = encoder(mel=np.clip(np.round(mel / scale) + zero, -128, 127).astype(np.int8))
    details: Mapping[str, Any] = encoder.get_output_details()
    return {
        output: (codes[output].astype(np.float32) - detail["quantization"][1]) * detail["quantization"][0]
        for output, detail in details.items()
    }


def run(options: argparse.Namespace) -> None:
    model = open_model(options.model, tell)
    speech = load_speech(options.calibration, model, language=None, skip_broken=False)
    name, frames = f"encode_{100 * options.window}", 100 * options.window
    clips = speech.utterances[: options.clips + 1]
    mels = [log_mel(clip.samples(), model.dimensions.n_mels)[None, :, :frames] for clip in clips]
    (encoder,), _ = converted(Compressed.original(model.network), LONGEST_PROMPT, [frames])
    with TemporaryDirectory() as scratch, torch.no_grad():
        floats, integers = Path(scratch) / "float.tflite", Path(scratch) / "int8.tflite"
        floats.write_bytes(converted_bytes([(name, encoder, {"mel": encoder.silence()})]))
        quantising = quantizer.Quantizer(str(floats))
        quantising.load_quantization_recipe(recipe.static_wi8_ai8())
        ranges = quantising.calibrate({name: [{"mel": mel} for mel in mels[:-1]]})
        quantising.quantize(ranges).export_model(str(integers), overwrite=True)
        count, total = integer_operators(integers)
        print(f"{count} of {total} operators have integers only; {integers.stat().st_size / 1e6:.1f} MB")
        expected = Interpreter(str(floats)).get_signature_runner(name)(mel=mels[-1])
        found = integer_outputs(integers, name, mels[-1])
    for output, values in sorted(expected.items()):
        error = np.sqrt(((found[output] - values) ** 2).mean() / (values**2).mean())
        print(f"{output}: root mean square error {error:.0%} of the values'")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calibration", type=Path, required=True)
    parser.add_argument("--model", default="tiny.en")
    parser.add_argument("--clips", type=int, default=8, help="that ranges are taken from; the next one is the judge")
    parser.add_argument("--window", type=int, default=10, help="seconds")
    try:
        run(parser.parse_args())
    except WhisperfitError as error:
        print(f"litert_static: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
