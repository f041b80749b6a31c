"""What the original does on calibration speech: inputs, gradients, importance, sensitivity."""
