"""Export to ONNX Runtime: an artifact directory that the package `runtime` loads and runs."""
