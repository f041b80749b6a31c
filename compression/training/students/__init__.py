"""What can be trained: a compressed Whisper, and networks of another architecture."""
