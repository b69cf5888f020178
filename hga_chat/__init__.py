"""Ask questions of long documents in the terminal, with a local model."""

__version__ = "0.1.0"
