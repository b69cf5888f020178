"""Model files to weights: Hugging Face directories and GGUF, with adapters merged."""
