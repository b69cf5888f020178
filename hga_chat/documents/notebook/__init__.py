"""Jupyter notebooks: one section per cell, with its output as Jupyter shows it."""
