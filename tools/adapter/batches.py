"""Training batches, made by other processes while the GPU works."""

import multiprocessing
import random
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from hga_engine.model.files import ModelFiles
from hga_engine.tokenizer.load import load_tokenizer
from tools.adapter import data, schedule
from tools.adapter.sequences import Maker

_AHEAD = 6
"""Batches made ahead."""


@dataclass(frozen=True)
class TrainingPlan:
    """What is trained, and for how long."""

    data: Path
    weights: Path
    """GGUF file of the base model."""
    out: Path
    """Folder of checkpoint, log and adapter."""
    total_minutes: float
    """Minutes of training over all runs; the schedule ends with them."""
    minutes: float
    """Minutes of this run."""
    batch_tokens: int = 65_536
    """Tokens on one GPU at a time, of one sequence or several."""
    batches: int = 2
    """In a step, shared between the GPUs."""
    short_windows: int = 8
    short_tokens: int = 2_048
    learning_rate: float = 1e-3
    text_weight: float = 0.3
    """Weight of the mean loss over the texts; the answers have 1."""
    short_weight: float = 2.0
    """Weight of the mean divergence from the base model over short windows."""
    concentration_weight: float = 0.0
    """Weight of the mean share of attention that routing would leave out."""
    from_adapter: Path | None = None
    """Adapter to begin with, in the middle of the schedule; None: one that changes nothing."""
    workers: int = 6
    save_every_s: float = 60.0
    seed: int = 0


@dataclass(frozen=True)
class Batch:
    """The tokens of one forward pass."""

    token_ids: torch.Tensor  # [sequences, tokens] int64
    text_weights: torch.Tensor  # [sequences, tokens]
    answer_weights: torch.Tensor  # [sequences, tokens]
    short_ids: torch.Tensor  # [windows, tokens] int64
    short_weights: torch.Tensor  # [windows, tokens]


_maker: Maker


def _start_worker(data_path: Path, gguf: Path) -> None:
    global _maker
    _maker = Maker(data.read(data_path), load_tokenizer(ModelFiles("base", None, gguf)))


def _make(plan: TrainingPlan, share: float, seed: int) -> tuple[Any, ...]:
    """Return the arrays of one batch; its length follows the schedule."""
    draw = random.Random(seed)
    length = min(schedule.length(share, seed // plan.batches), plan.batch_tokens)
    count = plan.batch_tokens // length
    long = [_maker.long(length, draw.getrandbits(60)) for _ in range(count)]
    windows = max(plan.short_windows // plan.batches, 1)
    short = [_maker.short(plan.short_tokens, draw.getrandbits(60)) for _ in range(windows)]
    columns: list[list[npt.NDArray[Any]]] = [
        [one.token_ids for one in long],
        [one.text_weights for one in long],
        [one.answer_weights for one in long],
        *map(list, zip(*short, strict=True)),
    ]
    return tuple(np.stack(column) for column in columns)


class Batches:
    """Batches that other processes make a few ahead."""

    def __init__(self, plan: TrainingPlan, rank: int, world: int, first_step: int) -> None:
        self._plan = plan
        context = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(
            plan.workers, context, _start_worker, (plan.data, plan.weights)
        )
        self._made: deque[Future[tuple[Any, ...]]] = deque()
        self._seeds = self._own_seeds(rank, world, first_step)

    def _own_seeds(self, rank: int, world: int, step: int) -> Iterator[int]:
        while True:
            for number in range(rank, self._plan.batches, world):
                yield self._plan.seed * 10**9 + step * self._plan.batches + number
            step += 1

    def next(self, share: float, device: torch.device) -> Batch:
        """Return the next batch of this process.

        Args:
            share: of the training that is done, which decides how long later sequences are.
            device: where it goes.
        """
        while len(self._made) < _AHEAD:
            self._made.append(self._pool.submit(_make, self._plan, share, next(self._seeds)))
        ids, text, answers, short, short_weights = map(
            torch.from_numpy, self._made.popleft().result()
        )
        return Batch(
            ids.to(device, torch.int64),
            text.to(device),
            answers.to(device),
            short.to(device, torch.int64),
            short_weights.to(device),
        )

    def close(self) -> None:
        """End the processes."""
        self._pool.shutdown(wait=False, cancel_futures=True)
