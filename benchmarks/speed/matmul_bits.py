"""How fast ONNX Runtime multiplies by weights of 2, 4 and 8 bits here: one MatMulNBits at a time, on one thread.

    OMP_NUM_THREADS=1 python benchmarks/speed/matmul_bits.py > benchmarks/results/matmul_bits.md

Shapes are those of tiny (384 to 1536) and base (512 to 2048), for the one row of a decoder step and for the 750 rows of
an encoder's window of 15 s; float32 activations (`accuracy_level` 1) and int8 blocks (4). Medians of CPU time.
"""

import argparse
from statistics import median
from time import process_time
from typing import NamedTuple

import numpy as np
import onnxruntime as ort
from onnx import TensorProto

from compression.export.onnx_runtime.graph import CONTRIB, Graph

BLOCK = 32
SHAPES = {"tiny": (384, 1536), "base": (512, 2048)}
ROWS = (1, 750)
BITS = (2, 4, 8)


class Product(NamedTuple):
    """(rows, inputs) times a matrix (outputs, inputs) of so many bits. `accuracy`: MatMulNBits' `accuracy_level`."""

    inputs: int
    outputs: int
    rows: int
    bits: int
    accuracy: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15)
    repeats = parser.parse_args().repeats
    print(f"onnxruntime {ort.__version__}, groups of {BLOCK}, one thread; us, and times the same with 4 bits\n")
    print("| shape | rows | activations | 2 bits | 4 bits | 8 bits |\n|---|---|---|---|---|---|")
    for name, (inputs, outputs) in SHAPES.items():
        for rows in ROWS:
            for accuracy, activations in ((1, "float32"), (4, "int8 blocks")):
                products = [Product(inputs, outputs, rows, bits, accuracy) for bits in BITS]
                times = {product.bits: seconds(product, repeats) for product in products}
                cells = " | ".join(f"{1e6 * s:,.0f} ({s / times[4]:.2f})" for s in times.values())
                print(f"| {name} {inputs} x {outputs} | {rows} | {activations} | {cells} |", flush=True)


def seconds(product: Product, repeats: int) -> float:
    """CPU time of one multiplication."""
    inputs, outputs, bits = product.inputs, product.outputs, product.bits
    rng, graph = np.random.default_rng(0), Graph("product")
    blocks = inputs // BLOCK
    x = graph.input("x", TensorProto.FLOAT, ("rows", inputs))
    codes = graph.constant("codes", rng.integers(0, 256, (outputs, blocks, BLOCK * bits // 8), np.uint8))
    scales = graph.constant("scales", rng.uniform(0.01, 0.02, (outputs, blocks)).astype(np.float32))
    shape = {"K": inputs, "N": outputs, "block_size": BLOCK, "bits": bits, "accuracy_level": product.accuracy}
    graph.output(graph.op("MatMulNBits", x, codes, scales, domain=CONTRIB, **shape), "y", ("rows", outputs))
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(graph.to_bytes(), options, providers=["CPUExecutionProvider"])
    values = {"x": rng.normal(size=(product.rows, inputs)).astype(np.float32)}
    calls = 1 if product.rows > 1 else 50
    times = []
    for _ in range(repeats + 1):
        started = process_time()
        for _ in range(calls):
            session.run(None, values)
        times.append((process_time() - started) / calls)
    return median(times[1:])


if __name__ == "__main__":
    main()
