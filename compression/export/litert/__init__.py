"""Export to LiteRT, the successor of TensorFlow Lite."""
