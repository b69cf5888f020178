"""C kernels for the CPU, compiled once for this machine and called through ctypes.

``rows`` and ``routing`` hold one function per kernel, ``layers`` the parts of a layer composed of
them, ``decode`` a whole layer for one token, composed of them in C, ``library`` the calls into the
compiled code, and ``build`` its compilation.
"""

from hga_kernels.cpu.routing import (
    attend_pages,
    attention_lse,
    encode_tokens,
    index_chunks,
    select_groups,
    summarize,
)
from hga_kernels.cpu.rows import gated_silu, linear, rms_norm, split_heads

__all__ = [
    "attend_pages",
    "attention_lse",
    "encode_tokens",
    "gated_silu",
    "index_chunks",
    "linear",
    "rms_norm",
    "select_groups",
    "split_heads",
    "summarize",
]
