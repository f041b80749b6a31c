"""Speech to learn from: calibration and training data."""
