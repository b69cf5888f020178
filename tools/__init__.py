"""Programs for developers, run as modules from the repository's root: ``python -m tools.demo``."""
