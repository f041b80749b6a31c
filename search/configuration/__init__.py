"""What a run is told: options, their file, names and paths."""
