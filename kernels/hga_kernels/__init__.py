"""Hierarchical Global Attention kernels, each with a plain torch reference.

Every function here has the signature and meaning of its namesake in ``reference`` and takes the
fastest path that fits the tensors it is given.
"""

import torch

from hga_kernels import cpu, reference
from hga_kernels.cpu import layers, library
from hga_kernels.dispatch import dispatch
from hga_kernels.memory import SELECTION_BYTES, empty_on_huge_pages, pin
from hga_kernels.reference.index import Packing, code_shape, decode_tokens, hadamard

__all__ = [
    "SELECTION_BYTES",
    "Packing",
    "attend_pages",
    "attention_lse",
    "code_shape",
    "decode_tokens",
    "empty_on_huge_pages",
    "encode_tokens",
    "experts",
    "hadamard",
    "index_chunks",
    "linear",
    "mlp",
    "norm_linear",
    "pin",
    "reference",
    "sample",
    "select_groups",
    "split_heads",
    "status",
    "summarize",
]

linear = dispatch(reference.linear, cpu.linear, "linear.linear")
norm_linear = dispatch(reference.norm_linear, layers.norm_linear, "linear.linear")
split_heads = dispatch(reference.split_heads, layers.split_heads, "linear.norm")
mlp = dispatch(reference.mlp, layers.mlp, "linear.experts")
experts = dispatch(reference.experts, layers.experts, "linear.experts")
sample = dispatch(reference.sample, None, "sampling")
summarize = dispatch(reference.summarize, cpu.summarize)
encode_tokens = dispatch(reference.encode_tokens, cpu.encode_tokens)
index_chunks = dispatch(reference.index_chunks, cpu.index_chunks, "index")
select_groups = dispatch(reference.select_groups, cpu.select_groups, "select.dispatch")
attend_pages = dispatch(reference.attend_pages, cpu.attend_pages, "attention")
attention_lse = dispatch(reference.attention_lse, cpu.attention_lse, "attention")


def status() -> dict[str, str]:
    """What each device's kernels run as, for people."""
    found = {"cpu": library.status()}
    if torch.cuda.is_available():
        # Not to be imported where there is no GPU.
        from hga_kernels.gpu import build, compiling

        found["cuda"] = f"{build.status()}; {compiling.status()}"
    return found
