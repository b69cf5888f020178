"""Hierarchical Global Attention kernels, each with a plain torch reference.

This is the door for whatever runs on any device: every function here has the signature and meaning
of its namesake in ``reference`` and takes the fastest path that fits the tensors it is given.
``DecodeLayers`` puts them together for one token on a CPU. What only runs on a GPU comes from the
other door, ``hga_kernels.gpu``, which imports Triton: import it where there is a GPU only. Nothing
else in this package is for use from outside.
"""

from collections.abc import Callable

import torch

from hga_kernels import cpu, reference
from hga_kernels.arguments import (
    Angles,
    Budget,
    ChunkIndex,
    ChunkRange,
    DecodeState,
    HeadWeights,
    LayerPages,
    PageTable,
    Reported,
    StepResults,
    TokenWindow,
    Window,
)
from hga_kernels.cpu import build, layers, library
from hga_kernels.cpu.decode import DecodeCounts, DecodeLayer, DecodeLayers, takes_decode_layers
from hga_kernels.dispatch import dispatch
from hga_kernels.gguf_blocks import FORMATS
from hga_kernels.memory import SELECTION_BYTES, empty_on_huge_pages, pin
from hga_kernels.reference.index import Packing, code_shape, decode_tokens, hadamard
from hga_kernels.reference.pages import forget_pages, min_cache_slots, prefetch_candidates
from hga_kernels.reference.selection import STRATA, draw_groups, take_groups, top_chunks
from hga_kernels.weights import FP8_BLOCK, BlockScaled, Packed, RowParts, Weight

__all__ = [
    "FORMATS",
    "FP8_BLOCK",
    "SELECTION_BYTES",
    "STRATA",
    "Angles",
    "BlockScaled",
    "Budget",
    "ChunkIndex",
    "ChunkRange",
    "DecodeCounts",
    "DecodeLayer",
    "DecodeLayers",
    "DecodeState",
    "HeadWeights",
    "LayerPages",
    "Packed",
    "Packing",
    "PageTable",
    "Reported",
    "RowParts",
    "StepResults",
    "TokenWindow",
    "Weight",
    "Window",
    "attend_pages",
    "attention_lse",
    "code_shape",
    "compile_for_cpu",
    "decode_tokens",
    "draw_groups",
    "empty_on_huge_pages",
    "encode_tokens",
    "experts",
    "forget_pages",
    "gather_rows",
    "hadamard",
    "index_chunks",
    "linear",
    "list_pages",
    "min_cache_slots",
    "mlp",
    "norm_linear",
    "pin",
    "prefetch_candidates",
    "reference",
    "sample",
    "select_groups",
    "split_heads",
    "status",
    "summarize",
    "take_groups",
    "takes_decode_layers",
    "top_chunks",
]

gather_rows = dispatch(reference.gather_rows, None, "linear.rows")
linear = dispatch(reference.linear, cpu.linear, "linear.linear")
norm_linear = dispatch(reference.norm_linear, layers.norm_linear, "linear.linear")
split_heads = dispatch(reference.split_heads, cpu.split_heads, "linear.norm")
mlp = dispatch(reference.mlp, layers.mlp, "linear.experts")
experts = dispatch(reference.experts, layers.experts, "linear.experts")
sample = dispatch(reference.sample, None, "sampling")
summarize = dispatch(reference.summarize, cpu.summarize)
encode_tokens = dispatch(reference.encode_tokens, cpu.encode_tokens)
index_chunks = dispatch(reference.index_chunks, cpu.index_chunks, "index")
select_groups = dispatch(reference.select_groups, cpu.select_groups, "select.dispatch")
list_pages = dispatch(reference.list_pages, None, "attention")
attend_pages = dispatch(reference.attend_pages, cpu.attend_pages, "attention")
attention_lse = dispatch(reference.attention_lse, cpu.attention_lse, "attention")


def compile_for_cpu(before: Callable[[], None]) -> None:
    """Compile the CPU's kernels, unless that was done on this machine before.

    Args:
        before: called first if they have to be compiled, which takes some seconds.
    """
    if build.will_compile():
        before()
    library.available()


def status() -> dict[str, str]:
    """Say in words how the kernels of each device run: compiled, or why not."""
    found = {"cpu": library.status()}
    if torch.cuda.is_available():
        # Imports Triton.
        from hga_kernels.gpu import build as gpu_build
        from hga_kernels.gpu import compiling

        found["cuda"] = f"{gpu_build.status()}; {compiling.status()}"
    return found
