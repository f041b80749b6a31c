"""Decoding, word errors, groups, and the check of an exported artifact."""
