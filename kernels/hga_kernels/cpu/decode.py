"""One token through one layer in one call of the library."""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from hga_kernels.arguments import CHUNK, Angles, Budget, ChunkIndex, HeadWeights
from hga_kernels.cpu import packed, routing
from hga_kernels.cpu.library import call, takes
from hga_kernels.weights import Weight


@dataclass(frozen=True)
class DecodeLayer:
    """A decoder layer, its pages and its index."""

    attention_norm: torch.Tensor  # [hidden]
    qkv: Weight  # [(query_heads + 2 * kv_heads) * head_dim, hidden]
    heads: HeadWeights
    output: Weight  # [hidden, query_heads * head_dim]
    mlp_norm: torch.Tensor  # [hidden]
    gate_up: Weight | None  # [2 * intermediate, hidden]; None: the MLP is left out
    down: Weight | None  # [hidden, intermediate]
    pool: torch.Tensor  # [kv_heads * max_groups, 2, 2, head_dim] bfloat16, by KV head and group
    index: ChunkIndex


@dataclass
class DecodeCounts:
    """What a step counts of its attention, layer by layer."""

    mass: torch.Tensor
    """[groups] float64, contiguous: attention mass, summed over query heads and layers."""
    layer_mass: torch.Tensor
    """[layers, groups] float32, contiguous: the same by layer, of reported groups."""
    reported: range
    """Groups whose mass is reported by layer."""
    chosen: int = 0
    """Groups that were chosen, over layers and KV heads."""


_WEIGHTS = ("qkv", "output", "gate_up", "down")


class DecodeLayers:
    """Takes single tokens through the layers of a model, each in one call.

    Computes what ``norm_linear``, ``split_heads``, ``attention_lse``, ``select_groups``,
    ``attend_pages``, ``linear`` and ``mlp`` do, to the bit: it calls the same kernels. The layers'
    tensors are held as long as this is.
    """

    def __init__(self, layers: Sequence[DecodeLayer], sink_chunks: int, budget: Budget) -> None:
        """Describe the layers to the library.

        Args:
            layers: all of one geometry, which ``takes_decode_layers`` has accepted.
            sink_chunks: chunks at the start of a session that every query attends to.
            budget: groups that a query may choose per KV head.
        """
        first = layers[0]
        kv_heads, capacity, dim = first.index.summaries.shape
        hidden, wide = first.attention_norm.shape[0], first.attention_norm.dtype == torch.float32
        norms = [n for n in (first.heads.q_norm, first.heads.k_norm) if n is not None]
        self._model = _Model(
            hidden,
            first.qkv.shape[0] // dim - 2 * kv_heads,
            kv_heads,
            dim,
            wide,
            not norms or norms[0].dtype == torch.float32,
            first.pool.shape[0] // kv_heads,
            capacity,
            sink_chunks,
            budget.groups,
            budget.expected,
            first.heads.eps,
        )
        self._described = [_Described(layer) for layer in layers]

    def run(
        self, layer: int, hidden: torch.Tensor, angles: Angles, position: int, counts: DecodeCounts
    ) -> None:
        """Take a token through a layer: its MLP is left out where it has none.

        Args:
            layer: number of the layer.
            hidden: [1, hidden] in the dtype of the layers' norms, contiguous; changed in place.
            angles: of the token's position, float32.
            position: of the token; the layer's pages have a place for it, and its index holds
                all chunks before that of the token.
            counts: added to.

        Raises:
            MemoryError: there is no memory for what is computed on the way.
        """
        counted = _Counted(
            counts.mass.data_ptr(),
            counts.layer_mass.data_ptr() + 4 * layer * counts.layer_mass.shape[1],
            0,
            counts.reported.start,
            counts.reported.stop,
        )
        call(
            "hga_decode_layer",
            ctypes.addressof(self._model),
            self._described[layer].address,
            hidden,
            angles.cos,
            angles.sin,
            ctypes.addressof(counted),
            layer,
            position,
        )
        counts.chosen += counted.chosen


def takes_decode_layers(layers: Sequence[DecodeLayer], budget: Budget) -> bool:
    """Return whether ``DecodeLayers`` can be used for these layers."""
    return budget.group_size == routing.PAGE_TOKENS and all(map(_takes_layer, layers))


def _takes_layer(layer: DecodeLayer) -> bool:
    wide = layer.attention_norm.dtype
    heads, index = layer.heads, layer.index
    dim = index.summaries.shape[2]
    floats = [t for t in (heads.bias, heads.key_shift) if t is not None]
    norms = [t for t in (heads.q_norm, heads.k_norm) if t is not None]
    plain = [layer.attention_norm, layer.mlp_norm]
    tensors = [*floats, *norms, *plain, layer.pool, index.summaries, index.codes, index.scales]
    return (
        wide in (torch.float32, torch.bfloat16)
        and takes(wide, *plain)
        and takes(torch.float32, *floats)
        and takes(norms[0].dtype if norms else torch.float32, *norms)
        and (not norms or norms[0].dtype in (torch.float32, torch.bfloat16))
        and takes(torch.bfloat16, layer.pool, index.summaries, index.scales)
        and takes(torch.uint8, index.codes)
        and all(tensor.is_contiguous() for tensor in tensors)
        and layer.pool.shape[1:] == (2, routing.PAGE_TOKENS, dim)
        and routing.can_be_coded(dim)
        and index.scales.shape[-1] == CHUNK
        and all(
            _takes_weight(weight, wide)
            for weight in (getattr(layer, name) for name in _WEIGHTS)
            if weight is not None
        )
    )


def _takes_weight(weight: Weight, wide: torch.dtype) -> bool:
    if isinstance(weight, torch.Tensor):
        return wide == torch.bfloat16 and takes(wide, weight) and weight.is_contiguous()
    return (
        wide == torch.float32
        and packed.parts_of(weight) is not None
        and weight.shape[1] % packed.SUB_BLOCK == 0
    )


class _Matrix(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("parts", ctypes.c_int32),
        ("outputs", ctypes.c_int32),
        ("inputs", ctypes.c_int32),
    )


class _Layer(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("attention_norm", "mlp_norm")),
        *((name, _Matrix) for name in _WEIGHTS),
        *((name, ctypes.c_void_p) for name in ("bias", "key_shift", "q_norm", "k_norm")),
        *((name, ctypes.c_void_p) for name in ("pool", "summaries", "codes", "scales")),
    )


class _Model(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int32) for name in ("hidden", "query_heads", "kv_heads", "dim")),
        *((name, ctypes.c_int32) for name in ("is_float", "norms_are_float")),
        *((name, ctypes.c_int32) for name in ("max_groups", "capacity_chunks")),
        *((name, ctypes.c_int32) for name in ("sink_chunks", "budget")),
        ("expected", ctypes.c_float),
        ("eps", ctypes.c_float),
    )


class _Counted(ctypes.Structure):
    _fields_ = (
        ("mass", ctypes.c_void_p),
        ("layer_mass", ctypes.c_void_p),
        ("chosen", ctypes.c_int64),
        ("first", ctypes.c_int32),
        ("end", ctypes.c_int32),
    )


class _Described:
    """A layer as the library takes it; holds what the library is told of by address."""

    def __init__(self, layer: DecodeLayer) -> None:
        self._layer = layer
        self._parts = {name: _parts(getattr(layer, name)) for name in _WEIGHTS}
        heads, index = layer.heads, layer.index
        pointers = {
            "attention_norm": layer.attention_norm,
            "mlp_norm": layer.mlp_norm,
            "bias": heads.bias,
            "key_shift": heads.key_shift,
            "q_norm": heads.q_norm,
            "k_norm": heads.k_norm,
            "pool": layer.pool,
            "summaries": index.summaries,
            "codes": index.codes,
            "scales": index.scales,
        }
        self._struct = _Layer(
            **{name: None if of is None else of.data_ptr() for name, of in pointers.items()},
            **{name: _matrix(getattr(layer, name), parts) for name, parts in self._parts.items()},
        )
        self.address = ctypes.addressof(self._struct)


def _parts(weight: Weight | None) -> "ctypes.Array[packed.Part] | None":
    return None if weight is None or isinstance(weight, torch.Tensor) else packed.parts_of(weight)


def _matrix(weight: Weight | None, parts: "ctypes.Array[packed.Part] | None") -> _Matrix:
    if weight is None:
        return _Matrix()
    outputs, inputs = weight.shape
    if parts is not None:
        return _Matrix(ctypes.addressof(parts), len(parts), outputs, inputs)
    assert isinstance(weight, torch.Tensor)
    return _Matrix(weight.data_ptr(), 0, outputs, inputs)
