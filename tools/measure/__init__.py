"""Measure speed, sources and routing."""
