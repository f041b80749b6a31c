"""The small runtime: transcribes audio with an ONNX artifact, on numpy and onnxruntime alone. Runs on the device."""

import os

# from 1.29 on, onnxruntime's wheels report to Microsoft, on boards too; this must be set before it is loaded
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
