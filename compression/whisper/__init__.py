"""The original models: loading, dimensions, tokenizer, layers by name."""
