"""What is copied to a board: self-contained programs for Python 3.9 or later."""
