"""What changes a network: pruning, low rank, vocabulary, grids and rounding."""
