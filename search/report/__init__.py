"""What a run leaves to read: CSV files, the page, the summary."""
