"""Scores models: costs from one inventory of operations, speech sets, decoding, word error rate."""
