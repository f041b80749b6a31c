"""Makes models: recipes, model loading, pruning, quantisation, calibration."""
