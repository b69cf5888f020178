"""Which files of a folder are loaded, and in which order."""
