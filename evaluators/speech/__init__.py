"""Speech sets: formats, audio, noise, features, languages."""
