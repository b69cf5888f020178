"""The engine: a decoder with Hierarchical Global Attention over paged K/V, on this machine."""
