"""Speech to learn from: calibration, training data, other students."""
