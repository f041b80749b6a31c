"""Knows hardware: device profiles, latency tables, the latency predictor."""
