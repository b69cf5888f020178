"""Decides which files of a folder are loaded, in which order, and why others are skipped."""
