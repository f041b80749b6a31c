"""Propose recipes and keep what became of them."""
