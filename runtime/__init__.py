"""The small runtime: transcribes audio with an ONNX artifact, on numpy and onnxruntime alone. Runs on the device."""
