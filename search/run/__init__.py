"""One run from beginning to end: loop, time, confirmation, export, progress."""
