"""Choosing groups in Triton."""
