"""Hierarchical Global Attention: index the keys, select groups, attend exactly to their pages."""
