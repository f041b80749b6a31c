"""Languages that are written without spaces between words: their errors are counted in characters."""

SPACELESS = frozenset({"zh", "yue", "ja", "th", "lo", "my", "km"})
"""Chinese, Cantonese, Japanese, Thai, Lao, Burmese, Khmer.

`whisper.tokenizer`, which splits transcripts into words, has them without Khmer; but Khmer puts spaces between phrases
only, so its words cannot be counted either. What a shorter vocabulary keeps does not depend on it: there is no list of
Khmer words.
"""
