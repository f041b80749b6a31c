"""Processes that measure recipes for a run, on this machine and on others."""
