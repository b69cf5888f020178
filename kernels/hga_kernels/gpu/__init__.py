"""Triton kernels for NVIDIA GPUs, each tested against its namesake in ``reference``.

This is the door for what only runs on a GPU: the parts of a decode step. It imports Triton, which
takes time and is not there on every machine, so import it where there is a GPU only. The kernels
behind the functions of ``hga_kernels`` are called from there.
"""

from hga_kernels.gpu import compiling
from hga_kernels.gpu.index import index_closed_chunk
from hga_kernels.gpu.linear.unpack import unpack
from hga_kernels.gpu.pages.attend import attend_resident
from hga_kernels.gpu.pages.cache import load_window, write_token
from hga_kernels.gpu.select.choose_pages import choose_pages
from hga_kernels.gpu.step import count_layers, finish_step

__all__ = [
    "attend_resident",
    "choose_pages",
    "compiling",
    "count_layers",
    "finish_step",
    "index_closed_chunk",
    "load_window",
    "unpack",
    "write_token",
]
