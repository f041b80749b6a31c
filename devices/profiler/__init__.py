"""Measuring a device: reaching it, describing it, timing operations on it."""
