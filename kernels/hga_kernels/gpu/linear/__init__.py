"""Linear layers, norms and experts in Triton."""
