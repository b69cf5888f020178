"""Runs parsers in child processes with limits on time, memory and output size."""
