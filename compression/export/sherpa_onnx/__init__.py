"""Export to sherpa-onnx, whose applications run on Android, iOS, HarmonyOS and embedded Linux."""
