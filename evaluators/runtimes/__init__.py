"""Exported artifacts, run by our own runtime and by other people's, and what they really are."""
