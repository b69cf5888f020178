"""K/V pages in the GPU's memory, and attention over them, in Triton."""
