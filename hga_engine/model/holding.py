"""How each weight of a checkpoint is held in memory, decided before any is read.

Weights in block formats stay as they are stored, and so do FP8 weights with 128 x 128 blocks where
they are wanted. All others become plain tensors.
"""

from collections import Counter
from itertools import groupby

import torch

from hga_engine.model.layout import Joined
from hga_engine.model.placement import planned, planned_fp8, planned_packed, planned_weights
from hga_engine.model.source import StoredSource, StoredTensor
from hga_engine.model.types import ModelWeights
from hga_kernels import FORMATS, FP8_BLOCK, Packed, RowParts, Weight

FP8 = torch.float8_e4m3fn
_TO_Q8_0 = ("MXFP4", "Q1_0", "TQ1_0", "TQ2_0")
"""Block formats without kernels whose blocks are small integers times a scale."""
_LEAST_HALF = 2.0**-24


class Holding:
    """Decides how weights are held on a device."""

    def __init__(
        self, source: StoredSource, dtype: torch.dtype, device: torch.device, keep_fp8: bool
    ) -> None:
        """Decide for all weights.

        Args:
            source: the checkpoint.
            dtype: type of plain tensors. Beside packed weights, norms are at least float32, and on
                a CPU so are all plain tensors but linear weights that are stored in bf16.
            device: device of the weights.
            keep_fp8: whether FP8 weights stay FP8 where they can be a ``BlockScaled``.

        Raises:
            ModelFileError: a tensor is missing, of another shape or an unsupported type.
        """
        self._source = source
        wide = torch.promote_types(dtype, torch.float32)
        self._keeps_plain = source.is_packed and device.type == "cpu"
        self._dtype = wide if self._keeps_plain else dtype
        self._norms = wide if source.is_packed else dtype
        self._keep_fp8 = keep_fp8
        self._converted: dict[str, tuple[str, torch.dtype | str]] = {}
        self.weights: ModelWeights = planned_weights(source.config, self._weight)
        """On torch's meta device."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What is held in another format than it is stored in, in sentences."""
        counts = Counter(self._converted.values())
        return tuple(
            f"{count} tensor{'s' if count > 1 else ''} stored as {stored} "
            f"{'are' if count > 1 else 'is'} held as {str(held).removeprefix('torch.')}."
            for (stored, held), count in sorted(counts.items(), key=str)
        )

    def kind(self, joined: Joined, stored: StoredTensor) -> torch.dtype | str:
        """Return the type or block format in which a part of a weight is held."""
        if joined.is_bias:
            return torch.promote_types(self._dtype, torch.float32)
        if len(joined.shape) == 1:
            return self._norms
        if not joined.is_linear and not joined.is_table:
            return self._dtype
        if isinstance(stored.kind, torch.dtype):
            return stored.kind if self._keeps_plain else self._dtype
        if stored.kind in FORMATS:
            return stored.kind
        return "Q8_0" if stored.kind in _TO_Q8_0 else self._dtype

    def is_fp8(self, joined: Joined) -> bool:
        """Whether all parts are FP8 and only the last one may end within a block."""
        if not self._keep_fp8 or self._source.fp8_block != (FP8_BLOCK, FP8_BLOCK):
            return False
        return joined.is_linear and all(
            self._source.stored(part.name, part.shape).kind == FP8
            and (part is parts[-1] or part.shape[0] % FP8_BLOCK == 0)
            for parts in joined.stacks
            for part in parts
        )

    def _weight(self, joined: Joined) -> Weight:
        if self.is_fp8(joined):
            return planned_fp8(joined.shape)
        experts = joined.shape[:1] if joined.has_experts else ()
        parts: list[torch.Tensor | Packed] = []
        for held, rows, columns in self._row_parts(joined):
            if isinstance(held, str):
                parts.append(planned_packed((*experts, rows, *columns), held))
            else:
                parts.append(planned((*experts, rows, *columns), held))
        return parts[0] if len(parts) == 1 else RowParts(tuple(parts))

    def _row_parts(self, joined: Joined) -> list[tuple[torch.dtype | str, int, tuple[int, ...]]]:
        """Return how runs of rows are held: the kind, the number of rows, the other dimensions."""
        kinds = []
        for parts in joined.stacks:
            of_stack = []
            for part in parts:
                stored = self._source.stored(part.name, part.shape)
                held = self.kind(joined, stored)
                of_stack.append(held)
                if isinstance(stored.kind, str) and held != stored.kind:
                    self._converted[stored.name] = stored.kind, held
            kinds.append(of_stack)
        parts, columns = joined.stacks[0], joined.stacks[0][0].shape[1:]
        runs = groupby(zip(kinds[0], parts, strict=True), key=lambda pair: pair[0])
        return [(held, sum(part.shape[0] for _, part in run), columns) for held, run in runs]


def to_q8_0(values: torch.Tensor, stored: str) -> torch.Tensor:
    """Pack weights of a format whose blocks are small integers times a scale.

    Nothing is lost, but that of MXFP4 weights below 2^-24 are rounded to a multiple of that.

    Args:
        values: [rows, columns] float32.
        stored: the format they were unpacked from.

    Returns:
        [rows, bytes] uint8.
    """
    blocks = values.unflatten(-1, (-1, FORMATS["Q8_0"].size))
    sizes = blocks.abs()
    if stored == "MXFP4":
        # The numbers of a block are 0, 1, 2, 3, 4, 6, 8 and 12 times a power of two.
        scales = torch.exp2(torch.floor(torch.log2(sizes.amax(-1, keepdim=True))) - 3)
    else:
        # All others are multiples of the smallest.
        scales = sizes.where(sizes > 0, torch.inf).amin(-1, keepdim=True)
        scales = scales.nan_to_num(posinf=0.0)
    scales = scales.clamp_min(_LEAST_HALF).half()
    numbers = (blocks / scales.float()).round().to(torch.int8)
    packed = torch.cat((scales.view(torch.uint8), numbers.view(torch.uint8)), -1)
    return packed.flatten(-2)
