"""Decides: search space, engines, run loop, front, report, command line."""
