"""Live captions: speech is transcribed while it is spoken. See docs/live.md."""
