"""Triton kernels for NVIDIA GPUs, each held against its namesake in ``reference``.

The modules are imported when a tensor on a GPU first comes along: importing Triton takes time, and
machines without a GPU need not have it.
"""
