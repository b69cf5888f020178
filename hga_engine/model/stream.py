"""Read weights from their files straight to where they are held, on a CPU or a GPU."""

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

import torch

from hga_engine.errors import DamagedWeightsError, ModelFileError
from hga_engine.model.holding import FP8, Holding, to_q8_0
from hga_engine.model.layout import Joined, ModelLayout, Part, model_layout
from hga_engine.model.placement import allocate
from hga_engine.model.source import StoredSource, StoredTensor, restore_halves
from hga_engine.model.types import ModelWeights, Weight, tensors_of
from hga_kernels import FORMATS, FP8_BLOCK, BlockScaled, pin

_BUFFER_BYTES = 64 << 20
_READ_BYTES = 8 << 20
_THREADS = 4
"""Threads that read one file; a single one does not reach the speed of a fast disk."""


def stream_weights(
    source: StoredSource,
    dtype: torch.dtype,
    device: torch.device,
    keep_fp8: bool,
    progress: Callable[[str, float], None] | None = None,
) -> ModelWeights:
    """Load a checkpoint to a device, holding each weight as ``Holding`` decides.

    Beside the weights this takes memory for one tensor that is converted and, for a GPU, two
    buffers of 64 MiB.

    Args:
        source: the checkpoint.
        dtype: type of plain tensors; see ``Holding``.
        device: device of the weights.
        keep_fp8: whether FP8 weights with 128 x 128 blocks stay as they are.
        progress: called with the current step and its progress by bytes, 0 to 1.

    Raises:
        ModelFileError: a tensor is missing, damaged or of an unsupported type, or a file cannot be
            read.
    """
    holding = Holding(source, dtype, device, keep_fp8)
    weights = allocate(holding.weights, device)
    plan = _Plan(source, holding, device)
    for joined, weight in _pairs(model_layout(source.config), weights):
        plan.add(joined, weight)
    total = sum(move.size for move in plan.moves)
    total += sum(place.nbytes for _, _, place in plan.conversions)
    done = 0

    def report(size: int) -> None:
        nonlocal done
        done += size
        if progress is not None:
            progress("Loading weights", done / total)

    if device.type == "cpu":
        _read_in_place(plan.moves, report)
    else:
        _read_through_buffers(plan.moves, device, report)
    for place, head_dim in plan.interleaved:
        place.copy_(restore_halves(place, head_dim))
    for part, stored, place in plan.conversions:
        values = source.read(part.name, part.shape)
        place.copy_(to_q8_0(values, str(stored.kind)) if place.dtype == torch.uint8 else values)
        report(place.nbytes)
    return replace(weights, notes=holding.notes)


@dataclass(frozen=True)
class _Move:
    """Consecutive elements of a file, and their destination."""

    path: Path
    offset: int
    """Offset in the file, in bytes."""
    dtype: torch.dtype
    """Type in the file."""
    place: torch.Tensor
    """[elements], contiguous."""

    @property
    def size(self) -> int:
        """Bytes in the file."""
        return self.place.numel() * self.dtype.itemsize


class _Plan:
    """The tensors to copy from files as they are, and those to convert."""

    def __init__(self, source: StoredSource, holding: Holding, device: torch.device) -> None:
        self._source = source
        self._holding = holding
        self._device = device
        self.moves: list[_Move] = []
        self.interleaved: list[tuple[torch.Tensor, int]] = []
        """Moved rows that are still to be put in order, and the rows of a head."""
        self.conversions: list[tuple[Part, StoredTensor, torch.Tensor]] = []

    def add(self, joined: Joined, weight: Weight) -> None:
        """Plan one of the decoder's tensors."""
        if isinstance(weight, BlockScaled):
            for part, place in _places(joined, [weight.values]):
                self._move(self._source.stored(part.name, part.shape), FP8, place)
            for part, place in _places(joined, [weight.scales], FP8_BLOCK):
                scales = self._source.stored(part.name + "_scale_inv", tuple(place.shape))
                self._convert_or_move(Part(scales.name, scales.shape), scales, place)
            return
        for part, place in _places(joined, [*tensors_of(weight)]):
            stored = self._source.stored(part.name, part.shape)
            if stored.kind == self._holding.kind(joined, stored) and stored.kind in FORMATS:
                self._move(stored, torch.uint8, place)
            else:
                self._convert_or_move(part, stored, place)

    def _convert_or_move(self, part: Part, stored: StoredTensor, place: torch.Tensor) -> None:
        """Plan a plain tensor. A GPU converts numbers itself; a CPU reads only what fits."""
        is_plain = isinstance(stored.kind, torch.dtype) and stored.kind != FP8
        if stored.kind == place.dtype or (is_plain and self._device.type != "cpu"):
            assert isinstance(stored.kind, torch.dtype)
            self._move(stored, stored.kind, place)
        else:
            self.conversions.append((part, stored, place))

    def _move(self, stored: StoredTensor, dtype: torch.dtype, place: torch.Tensor) -> None:
        self.moves.append(_Move(stored.path, stored.offset, dtype, place.view(-1)))
        if stored.interleaved:
            self.interleaved.append((place, stored.interleaved))


def _places(
    joined: Joined, tensors: list[torch.Tensor], block: int = 1
) -> Iterator[tuple[Part, torch.Tensor]]:
    """Yield each part of a weight with the rows that hold it.

    Args:
        joined: the weight.
        tensors: what holds it, one below the other.
        block: rows of the part that share a row of the tensor.
    """
    for number, parts in enumerate(joined.stacks):
        stacks = iter([tensor[number] if joined.has_experts else tensor for tensor in tensors])
        stack, row = next(stacks), 0
        for part in parts:
            if row == stack.shape[0]:
                stack, row = next(stacks), 0
            rows = -(-part.shape[0] // block)
            yield part, stack[row : row + rows]
            row += rows


def _pairs(layout: ModelLayout, weights: ModelWeights) -> Iterator[tuple[Joined, Weight]]:
    yield layout.embedding, weights.embedding
    for joined, layer in zip(layout.layers, weights.layers, strict=True):
        yield from ((entry, getattr(layer, name)) for name, entry in joined.items())
    yield layout.final_norm, weights.final_norm
    if layout.lm_head is not None:
        yield layout.lm_head, weights.lm_head


def _read_in_place(moves: list[_Move], report: Callable[[int], None]) -> None:
    """Read files to host memory without a copy between."""
    with ThreadPoolExecutor(_THREADS) as pool:
        for path, of_file in _by_file(moves):
            pieces = list(_cut(of_file, _READ_BYTES))
            with _opened(path) as file:

                def read(piece: _Move, file: int = file) -> int:
                    _fill(file, piece.place.view(torch.uint8), piece.offset)
                    return piece.size

                for size in pool.map(read, pieces):
                    report(size)


def _read_through_buffers(
    moves: list[_Move], device: torch.device, report: Callable[[int], None]
) -> None:
    """Read files front to back into pinned buffers, from which a GPU copies while others fill."""
    buffers = [_Buffer(device), _Buffer(device)]
    try:
        with ThreadPoolExecutor(_THREADS) as pool:
            for path, of_file in _by_file(moves):
                with _opened(path) as file:
                    for batch in _batches(of_file):
                        buffers.reverse()
                        buffers[0].fill(pool, file, batch)
                        buffers[0].empty(batch)
                        report(sum(move.size for move in batch))
    finally:
        if device.type == "cuda":
            torch.cuda.synchronize(device)


def _by_file(moves: list[_Move]) -> Iterator[tuple[Path, Iterator[_Move]]]:
    ordered = sorted(moves, key=lambda move: (move.path, move.offset))
    return groupby(ordered, key=lambda move: move.path)


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    """Open a file and name it in the errors of reading it."""
    try:
        with path.open("rb", buffering=0) as file:
            yield file.fileno()
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read ({error.strerror}).") from error
    except EOFError as error:
        raise DamagedWeightsError(f"{path}: is truncated.") from error


def _fill(file: int, memory: torch.Tensor, offset: int) -> None:
    """Read bytes of a file into memory [bytes] uint8 on the CPU.

    Raises:
        OSError: the file cannot be read.
        EOFError: the file is shorter.
    """
    view, at = memory.numpy().data, 0
    while at < len(view):
        count = os.preadv(file, [view[at:]], offset + at)
        if not count:
            raise EOFError
        at += count


def _batches(moves: Iterable[_Move]) -> Iterator[list[_Move]]:
    """Yield consecutive moves of one file that fit into a buffer together."""
    batch: list[_Move] = []
    for move in _cut(moves, _BUFFER_BYTES):
        if batch and move.offset + move.size - batch[0].offset > _BUFFER_BYTES:
            yield batch
            batch = []
        batch.append(move)
    if batch:
        yield batch


def _cut(moves: Iterable[_Move], size: int) -> Iterator[_Move]:
    """Yield the moves in pieces of at most ``size`` bytes."""
    for move in moves:
        offset = move.offset
        for place in move.place.split(size // move.dtype.itemsize):
            piece = replace(move, offset=offset, place=place)
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
        memory = self._memory[: end - start]

        def read(at: int) -> None:
            _fill(file, memory[at : at + _READ_BYTES], start + at)

        for _ in pool.map(read, range(0, end - start, _READ_BYTES)):
            pass

    def empty(self, batch: list[_Move]) -> None:
        """Start to copy the batch to its destination."""
        for move in batch:
            at = move.offset - batch[0].offset
            raw = self._memory[at : at + move.size]
            if move.dtype == move.place.dtype:
                move.place.view(torch.uint8).copy_(raw, non_blocking=True)
            else:
                # Copied first: a view of the buffer in another type would have to be aligned.
                own = torch.empty_like(raw, device=move.place.device)
                own.copy_(raw, non_blocking=True)
                move.place.copy_(own.view(move.dtype))
        if self._copied is not None:
            self._copied.record()
