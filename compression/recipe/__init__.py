"""What a recipe says; no torch."""
