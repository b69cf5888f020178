"""The training loop: long sequences with turns, and short ones held to the base model."""

import json
import multiprocessing
import random
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from adapter_training import data, schedule
from adapter_training.adapter_file import write_adapter
from adapter_training.losses import cross_entropies, divergences
from adapter_training.model import ROPE_BASE, BaseModel, Network, load_base, merge, new_adapter
from adapter_training.sequences import Maker
from hga_engine.model.files import ModelFiles
from hga_engine.tokenizer import load_tokenizer

_AHEAD = 6
"""Batches that are made ahead."""
_MOST_APART = 0.05
"""How far two attentions may differ in bf16, of values of about 1."""


@dataclass(frozen=True)
class TrainingPlan:
    """What is trained, and for how long."""

    data: Path
    weights: Path
    """GGUF file of the base model."""
    out: Path
    """Folder of checkpoint, log and adapter."""
    total_minutes: float
    """Of training, over all runs; the schedule ends with them."""
    minutes: float
    """Of this run."""
    batch_tokens: int = 65_536
    """Of one sequence or several, on one GPU at a time."""
    batches: int = 2
    """In a step, shared between the GPUs."""
    short_windows: int = 8
    short_tokens: int = 2_048
    learning_rate: float = 1e-3
    text_weight: float = 0.3
    """Of the mean loss over the texts, where that over the answers has 1."""
    short_weight: float = 2.0
    """Of the mean divergence from the base model over short windows."""
    workers: int = 6
    save_every_s: float = 60.0
    seed: int = 0


@dataclass(frozen=True)
class Batch:
    """One forward pass's tokens."""

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
    """Arrays of one batch; its length depends on how far training is."""
    draw = random.Random(seed)
    length = min(schedule.length(share, seed // plan.batches), plan.batch_tokens)
    count = plan.batch_tokens // length
    long = [_maker.long(length, draw.getrandbits(60)) for _ in range(count)]
    windows = max(plan.short_windows // plan.batches, 1)
    short = [_maker.short(plan.short_tokens, draw.getrandbits(60)) for _ in range(windows)]
    columns = [
        [one.token_ids for one in long],
        [one.text_weights for one in long],
        [one.answer_weights for one in long],
        *map(list, zip(*short, strict=True)),
    ]
    return tuple(np.stack(column) for column in columns)


class Batches:
    """Batches made by other processes, a few ahead."""

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
        """The next batch of this process.

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


def train(plan: TrainingPlan) -> None:
    """Train, from the checkpoint in ``plan.out`` on if there is one.

    Under torchrun the batches of a step are shared between its processes.
    """
    rank, world, device = _place()
    plan.out.mkdir(parents=True, exist_ok=True)
    checkpoint = plan.out / "checkpoint.pt"
    base = load_base(plan.weights, device, _dtype(device))
    factors = {name: f.requires_grad_() for name, f in new_adapter(base, plan.seed).items()}
    groups = [[f for name, f in sorted(factors.items()) if name.endswith(part)] for part in "ab"]
    optimizer = torch.optim.AdamW(
        [{"params": group} for group in groups], plan.learning_rate, (0.9, 0.98), weight_decay=0.0
    )
    state = {"step": 0, "elapsed_s": 0.0}
    if checkpoint.exists():
        saved = torch.load(checkpoint, map_location=device, weights_only=True)
        state = saved["state"]
        with torch.no_grad():
            for name, factor in factors.items():
                factor.copy_(saved["factors"][name])
        optimizer.load_state_dict(saved["optimizer"])
    batches = Batches(plan, rank, world, int(state["step"]))
    trainer = Trainer(plan, base, factors, optimizer, world)
    log = (plan.out / "log.jsonl").open("a") if rank == 0 else None
    total_s = plan.total_minutes * 60
    before_s, stop_s = state["elapsed_s"], min(total_s, state["elapsed_s"] + plan.minutes * 60)
    step, elapsed = int(state["step"]), before_s
    batch = batches.next(elapsed / total_s, device)
    began = last_saved = last = time.monotonic()
    while elapsed < stop_s:
        share = elapsed / total_s
        figures = trainer.step(batches, batch, share, rank)
        batch = trainer.following
        step += 1
        now = time.monotonic()
        # All processes go by the clock of the slowest.
        elapsed = before_s + _largest(now - began, device)
        if log is not None:
            length = figures.pop("length")
            tokens = plan.batch_tokens * plan.batches
            row = {"step": step, "elapsed_s": elapsed, "length": length, **figures}
            row |= {"tokens_per_s": tokens / (now - last), "peak_bytes": _peak(device)}
            rounded = {key: float(f"{value:.5g}") for key, value in row.items()}
            log.write(json.dumps(rounded) + "\n")
            log.flush()
            if step % 10 == 1:
                print(json.dumps(rounded), flush=True)
            if now - last_saved > plan.save_every_s:
                _save(checkpoint, factors, optimizer, step, elapsed)
                last_saved = time.monotonic()
        last = now
    batches.close()
    if rank == 0:
        _save(checkpoint, factors, optimizer, step, elapsed)
        write_adapter(plan.out / "adapter.safetensors", factors)
        print(f"{step} steps in {elapsed:.0f} s of {total_s:.0f} s", flush=True)
    if world > 1:
        dist.destroy_process_group()


class Trainer:
    """One optimizer step after another."""

    def __init__(
        self,
        plan: TrainingPlan,
        base: BaseModel,
        factors: dict[str, torch.Tensor],
        optimizer: torch.optim.Optimizer,
        world: int,
    ) -> None:
        self._plan = plan
        self._base = base
        self._factors = factors
        self._optimizer = optimizer
        self._world = world
        backends = fastest_attention(base, plan.batch_tokens)
        self._long = Network(base.config, ROPE_BASE, backends, saves_memory=True)
        self._short = Network(base.config, base.config.rope_base, backends)
        self.following: Batch

    def step(self, batches: Batches, batch: Batch, share: float, rank: int) -> dict[str, float]:
        """Take one step over this process's batches, the first of which is there already."""
        plan, device = self._plan, self._base.device
        sums = torch.zeros(3, device=device)
        length = batch.token_ids.shape[1]
        for _ in range(rank, plan.batches, self._world):
            sums += self.backward(batch)
            # Made ready while the GPU is at work.
            batch = batches.next(share, device)
        self.following = batch
        gradients = [factor.grad for factor in self._factors.values() if factor.grad is not None]
        if self._world > 1:
            flat = torch.cat([*(gradient.flatten() for gradient in gradients), sums])
            dist.all_reduce(flat)
            parts = flat.split([*(gradient.numel() for gradient in gradients), 3])
            for gradient, part in zip(gradients, parts[:-1], strict=True):
                gradient.copy_(part.view_as(gradient))
            sums = parts[-1]
        norm = torch.nn.utils.clip_grad_norm_(self._factors.values(), 1.0)
        rate = plan.learning_rate * schedule.rate(share)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        answers, text, short = (sums / plan.batches).tolist()
        figures = {"answer_nats": answers, "text_nats": text, "short_divergence": short}
        return figures | {"norm": float(norm), "rate": rate, "length": length}

    def backward(self, batch: Batch) -> torch.Tensor:
        """Add to the gradients; returns the mean losses of answers, texts and short windows."""
        plan = self._plan
        weights = merge(self._base, self._factors)
        # The network's gradient with respect to the merged weights is carried on to the factors
        # once, after both passes.
        leaves = {
            name: w.detach().requires_grad_() for name, w in weights.items() if w.requires_grad
        }
        used = {**weights, **leaves}
        table = self._base.rounded["embedding"]
        hidden = self._long.hidden(used, batch.token_ids)[:, :-1].flatten(0, 1)
        nats = cross_entropies(hidden, table, batch.token_ids[:, 1:].flatten())
        answer = _weighted(nats, batch.answer_weights[:, 1:].flatten())
        text = _weighted(nats, batch.text_weights[:, 1:].flatten())
        ((answer + plan.text_weight * text) / plan.batches).backward()
        del hidden, nats
        short = self._short_loss(used, batch)
        (plan.short_weight * short / plan.batches).backward()
        torch.autograd.backward(
            [weights[name] for name in leaves], [leaf.grad for leaf in leaves.values()]
        )
        return torch.stack([answer.detach(), text.detach(), short.detach()])

    def _short_loss(self, weights: dict[str, torch.Tensor], batch: Batch) -> torch.Tensor:
        table = self._base.rounded["embedding"]
        with torch.no_grad():
            expected = self._short.hidden(self._base.rounded, batch.short_ids)[:, :-1]
        hidden = self._long.hidden(weights, batch.short_ids)[:, :-1]
        apart = divergences(hidden.flatten(0, 1), table, expected.flatten(0, 1))
        return _weighted(apart, batch.short_weights[:, 1:].flatten())


def fastest_attention(base: BaseModel, tokens: int) -> list[SDPBackend] | None:
    """Time what this GPU has for one long sequence, forward and backward; None on a CPU."""
    if base.device.type != "cuda":
        return None
    config = base.config
    heads = (config.num_query_heads, config.num_kv_heads, config.num_kv_heads)
    inputs = [
        torch.randn(
            (1, tokens, count, config.head_dim), device="cuda", dtype=torch.bfloat16
        ).requires_grad_()
        for count in heads
    ]
    times: dict[SDPBackend, float] = {}
    outputs: list[torch.Tensor] = []
    for backend in (SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION):
        try:
            for _ in range(3):
                torch.cuda.synchronize()
                began = time.perf_counter()
                with sdpa_kernel([backend]):
                    turned = [part.transpose(1, 2) for part in inputs]
                    out = functional.scaled_dot_product_attention(
                        *turned, is_causal=True, enable_gqa=True
                    )
                out.backward(out.detach())
                torch.cuda.synchronize()
                times[backend] = time.perf_counter() - began
            outputs.append(out.detach())
            if (outputs[0] - outputs[-1]).abs().max() > _MOST_APART:
                raise RuntimeError("differs from the others")
        except RuntimeError as error:
            times.pop(backend, None)
            print(f"{backend.name}: {str(error).splitlines()[0]}", flush=True)
    order = sorted(times, key=lambda backend: times[backend])
    print({backend.name: f"{times[backend] * 1e3:.1f} ms" for backend in order}, flush=True)
    return [*order, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


def _weighted(nats: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    return (nats * weights).sum() / weights.sum().clamp_min(1)


def _place() -> tuple[int, int, torch.device]:
    """Rank, number of processes, and device of this one."""
    import os

    if not torch.cuda.is_available():
        return 0, 1, torch.device("cpu")
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    torch.cuda.set_device(device)
    torch.backends.cuda.matmul.allow_tf32 = True
    if world > 1:
        dist.init_process_group("nccl", device_id=device)
    return rank, world, device


def _dtype(device: torch.device) -> torch.dtype:
    return torch.bfloat16 if device.type == "cuda" else torch.float32


def _largest(value: float, device: torch.device) -> float:
    if not dist.is_initialized():
        return value
    shared = torch.tensor(value, device=device, dtype=torch.float64)
    dist.all_reduce(shared, dist.ReduceOp.MAX)
    return float(shared)


def _peak(device: torch.device) -> int:
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0


def _save(
    path: Path,
    factors: dict[str, torch.Tensor],
    optimizer: torch.optim.Optimizer,
    step: int,
    elapsed: float,
) -> None:
    beside = path.with_suffix(".part")
    torch.save(
        {
            "state": {"step": step, "elapsed_s": elapsed},
            "factors": {name: factor.detach() for name, factor in factors.items()},
            "optimizer": optimizer.state_dict(),
        },
        beside,
    )
    beside.replace(path)
