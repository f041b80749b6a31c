"""What onnxruntime makes of a model before it runs it."""

import tempfile
from collections import Counter
from pathlib import Path

import onnx
import onnxruntime as ort

from runtime.model import session_entries


def optimised(model: bytes | Path, *, with_tensors: bool = False) -> onnx.GraphProto:
    """The graph that a session really executes, opened as `runtime` and the measuring program open it."""
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder) / "optimised.onnx"
        options = ort.SessionOptions()
        options.optimized_model_filepath = str(written)
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        for key, value in session_entries(saturates=False).items():
            options.add_session_config_entry(key, value)
        source = str(model) if isinstance(model, Path) else model
        ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        return onnx.load(written, load_external_data=with_tensors).graph


def kernels(graph: onnx.GraphProto) -> Counter[str]:
    """How many nodes there are of each operator."""
    return Counter(node.op_type for node in graph.node)
