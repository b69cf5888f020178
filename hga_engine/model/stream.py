"""Stream a checkpoint to a device: files are read front to back, without a copy on the host."""

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import torch

from hga_engine.errors import DamagedWeightsError, ModelFileError
from hga_engine.model.directory import DirectorySource, StoredTensor
from hga_engine.model.layout import Joined, ModelLayout, Part, model_layout
from hga_engine.model.placement import empty_weights
from hga_engine.model.types import ModelWeights, Weight
from hga_kernels import FP8_BLOCK, BlockScaled, pin

_BUFFER_BYTES = 64 << 20
_READ_BYTES = 8 << 20
_THREADS = 4
"""Threads that read one file; a single one does not reach the speed of a fast disk."""
_FP8 = torch.float8_e4m3fn


def stream_weights(
    source: DirectorySource,
    dtype: torch.dtype,
    device: torch.device,
    progress: Callable[[str, float], None] | None = None,
) -> ModelWeights:
    """Load a checkpoint to a device, leaving FP8 weights with 128 x 128 blocks as they are.

    Takes two buffers of 64 MiB of host memory, and the embedding if it stays there. FP8 weights
    that cannot be a ``BlockScaled`` (blocks of another size, or joined parts that do not fill their
    last block) are dequantised to ``dtype``.

    Args:
        source: the checkpoint.
        dtype: type of everything that is not FP8.
        device: device of the weights.
        progress: called with the current step and its progress by bytes, 0 to 1.

    Raises:
        ModelFileError: a tensor is missing, damaged or of an unsupported type, or a file cannot be
            read.
    """
    weights = empty_weights(source.config, dtype, device, lambda joined: _is_fp8(source, joined))
    plan = _Plan(source)
    for joined, weight in _pairs(model_layout(source.config), weights):
        plan.add(joined, weight)
    total = sum(move.size for move in plan.moves)
    total += sum(place.nbytes for _, place in plan.dequantized)
    done = 0

    def report(size: int) -> None:
        nonlocal done
        done += size
        if progress is not None:
            progress("Loading weights", done / total)

    _read(plan.moves, device, report)
    for part, place in plan.dequantized:
        place.copy_(source.read(part.name, part.shape))
        report(place.nbytes)
    return weights


@dataclass(frozen=True)
class _Move:
    """Consecutive elements of a file, and their destination."""

    stored: StoredTensor
    offset: int
    """Offset in the file, in bytes."""
    place: torch.Tensor
    """[elements], contiguous."""

    @property
    def size(self) -> int:
        """Bytes in the file."""
        return self.place.numel() * self.stored.dtype.itemsize


class _Plan:
    """The tensors to copy from files as they are, and those to dequantise."""

    def __init__(self, source: DirectorySource) -> None:
        self._source = source
        self.moves: list[_Move] = []
        self.dequantized: list[tuple[Part, torch.Tensor]] = []

    def add(self, joined: Joined, weight: Weight) -> None:
        """Plan one of the decoder's tensors."""
        if isinstance(weight, BlockScaled):
            self._add(joined, weight.values)
            self._add(joined, weight.scales, FP8_BLOCK)
        else:
            assert isinstance(weight, torch.Tensor)
            self._add(joined, weight)

    def _add(self, joined: Joined, whole: torch.Tensor, block: int = 1) -> None:
        """Plan the parts of a tensor or, with a block size, the scales of its parts."""
        for parts, stack in zip(
            joined.stacks, whole if joined.has_experts else [whole], strict=True
        ):
            row = 0
            for part in parts:
                rows = -(-part.shape[0] // block)
                place = stack[row : row + rows]
                row += rows
                name = part.name if block == 1 else part.name + "_scale_inv"
                stored = self._source.stored(name, tuple(place.shape))
                if stored.dtype == _FP8 != place.dtype:
                    self.dequantized.append((part, place))
                else:
                    self.moves.append(_Move(stored, stored.offset, place.view(-1)))


def _is_fp8(source: DirectorySource, joined: Joined) -> bool:
    """Whether all parts are FP8 and only the last one may end within a block."""
    return source.fp8_block == (FP8_BLOCK, FP8_BLOCK) and all(
        source.stored(part.name, part.shape).dtype == _FP8
        and (part is parts[-1] or part.shape[0] % FP8_BLOCK == 0)
        for parts in joined.stacks
        for part in parts
    )


def _pairs(layout: ModelLayout, weights: ModelWeights) -> Iterator[tuple[Joined, Weight]]:
    yield layout.embedding, weights.embedding
    for joined, layer in zip(layout.layers, weights.layers, strict=True):
        yield from ((entry, getattr(layer, name)) for name, entry in joined.items())
    yield layout.final_norm, weights.final_norm
    if layout.lm_head is not None:
        yield layout.lm_head, weights.lm_head


def _read(moves: list[_Move], device: torch.device, report: Callable[[int], None]) -> None:
    moves = sorted(moves, key=lambda move: (move.stored.path, move.offset))
    buffers = [_Buffer(device), _Buffer(device)]
    try:
        with ThreadPoolExecutor(_THREADS) as pool:
            for path, of_file in groupby(moves, key=lambda move: move.stored.path):
                _read_file(path, _batches(of_file), buffers, pool, report)
    finally:
        if device.type == "cuda":
            torch.cuda.synchronize(device)


def _read_file(
    path: Path,
    batches: Iterable[list[_Move]],
    buffers: "list[_Buffer]",
    pool: ThreadPoolExecutor,
    report: Callable[[int], None],
) -> None:
    try:
        with path.open("rb", buffering=0) as file:
            for batch in batches:
                buffers.reverse()
                buffers[0].fill(pool, file.fileno(), batch)
                buffers[0].empty(batch)
                report(sum(move.size for move in batch))
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read ({error.strerror}).") from error
    except EOFError as error:
        raise DamagedWeightsError(f"{path}: is truncated.") from error


def _batches(moves: Iterable[_Move]) -> Iterator[list[_Move]]:
    """Yield consecutive moves of one file that fit into a buffer together."""
    batch: list[_Move] = []
    for move in _cut(moves):
        if batch and move.offset + move.size - batch[0].offset > _BUFFER_BYTES:
            yield batch
            batch = []
        batch.append(move)
    if batch:
        yield batch


def _cut(moves: Iterable[_Move]) -> Iterator[_Move]:
    """Yield the moves in pieces no larger than a buffer."""
    for move in moves:
        offset = move.offset
        for place in move.place.split(_BUFFER_BYTES // move.stored.dtype.itemsize):
            piece = _Move(move.stored, offset, place)
            offset += piece.size
            yield piece


class _Buffer:
    """Host memory between a file and the device."""

    def __init__(self, device: torch.device) -> None:
        self._memory = torch.empty(_BUFFER_BYTES, dtype=torch.uint8)
        self._copied: torch.cuda.Event | None = None
        if device.type == "cuda":
            pin(self._memory, self)
            self._copied = torch.cuda.Event()

    def fill(self, pool: ThreadPoolExecutor, file: int, batch: list[_Move]) -> None:
        """Read the file from the first to the last byte of the batch, once earlier copies are done.

        Raises:
            OSError: the file cannot be read.
            EOFError: the file is shorter.
        """
        if self._copied is not None:
            self._copied.synchronize()
        start, end = batch[0].offset, batch[-1].offset + batch[-1].size
        view = self._memory.numpy().data

        def read(at: int) -> None:
            last = min(at + _READ_BYTES, end - start)
            while at < last:
                count = os.preadv(file, [view[at:last]], start + at)
                if not count:
                    raise EOFError
                at += count

        for _ in pool.map(read, range(0, end - start, _READ_BYTES)):
            pass

    def empty(self, batch: list[_Move]) -> None:
        """Start to copy the batch to its destination."""
        for move in batch:
            at = move.offset - batch[0].offset
            raw = self._memory[at : at + move.size]
            if move.stored.dtype == move.place.dtype:
                move.place.view(torch.uint8).copy_(raw, non_blocking=True)
            else:
                # Copied first: a view of the buffer in another type would have to be aligned.
                own = torch.empty_like(raw, device=move.place.device)
                own.copy_(raw, non_blocking=True)
                move.place.copy_(own.view(move.stored.dtype))
        if self._copied is not None:
            self._copied.record()
