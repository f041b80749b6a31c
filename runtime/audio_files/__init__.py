"""What an audio file holds, as streams of samples: a reader per container, and libsndfile for what they leave."""
