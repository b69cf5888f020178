"""The training loop: long sequences with turns, and short ones kept close to the base model."""

import json
import os
import time
from pathlib import Path

import torch
import torch.distributed as dist
from torch.utils.checkpoint import checkpoint

from tools.adapter import schedule
from tools.adapter.adapter_file import read_adapter, to_go_on, write_adapter
from tools.adapter.attention import fastest_attention
from tools.adapter.batches import Batch, Batches, TrainingPlan
from tools.adapter.concentration import missed_share, places
from tools.adapter.losses import cross_entropies, divergences
from tools.adapter.model import ROPE_BASE, BaseModel, Network, load_base, merge, new_adapter


def train(plan: TrainingPlan) -> None:
    """Train, from the checkpoint in ``plan.out`` if there is one.

    Under torchrun the batches of a step are shared between its processes.
    """
    rank, world, device = _place()
    plan.out.mkdir(parents=True, exist_ok=True)
    saved_at = plan.out / "checkpoint.pt"
    base = load_base(plan.weights, device, _dtype(device))
    first = new_adapter(base, plan.seed)
    if plan.from_adapter is not None:
        first = to_go_on(read_adapter(plan.from_adapter, device))
    factors = {name: f.requires_grad_() for name, f in first.items()}
    groups = [[f for name, f in sorted(factors.items()) if name.endswith(part)] for part in "ab"]
    optimizer = torch.optim.AdamW(
        [{"params": group} for group in groups], plan.learning_rate, (0.9, 0.98), weight_decay=0.0
    )
    state = {"step": 0, "elapsed_s": 0.0}
    if saved_at.exists():
        saved = torch.load(saved_at, map_location=device, weights_only=True)
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
    begin = 0.0 if plan.from_adapter is None else schedule.MIDDLE

    def share() -> float:
        return begin + (1 - begin) * elapsed / total_s

    batch = batches.next(share(), device)
    began = last_saved = last = time.monotonic()
    while elapsed < stop_s:
        figures = trainer.step(batches, batch, share(), rank)
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
                _save(saved_at, factors, optimizer, step, elapsed)
                last_saved = time.monotonic()
        last = now
    batches.close()
    if rank == 0:
        _save(saved_at, factors, optimizer, step, elapsed)
        write_adapter(plan.out / "adapter.safetensors", factors)
        print(f"{step} steps in {elapsed:.0f} s of {total_s:.0f} s", flush=True)
    if world > 1:
        dist.destroy_process_group()


class Trainer:
    """Take optimizer steps, one after another."""

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
        self._draw = torch.Generator().manual_seed(plan.seed)
        self.following: Batch

    def step(self, batches: Batches, batch: Batch, share: float, rank: int) -> dict[str, float]:
        """Take one step over this process's batches; the first is given."""
        plan, device = self._plan, self._base.device
        sums = torch.zeros(4, device=device)
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
            parts = flat.split([*(gradient.numel() for gradient in gradients), 4])
            for gradient, part in zip(gradients, parts[:-1], strict=True):
                gradient.copy_(part.view_as(gradient))
            sums = parts[-1]
        norm = torch.nn.utils.clip_grad_norm_(self._factors.values(), 1.0)
        rate = plan.learning_rate * schedule.rate(share)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        answers, text, short, missed = (sums / plan.batches).tolist()
        figures = {"answer_nats": answers, "text_nats": text, "short_divergence": short}
        figures["missed_share"] = missed
        return figures | {"norm": float(norm), "rate": rate, "length": length}

    def backward(self, batch: Batch) -> torch.Tensor:
        """Add to the gradients; returns the mean losses: answers, texts, short windows, missed."""
        plan = self._plan
        weights = merge(self._base, self._factors)
        # The network's gradient with respect to the merged weights is carried on to the factors
        # once, after both passes.
        leaves = {
            name: w.detach().requires_grad_() for name, w in weights.items() if w.requires_grad
        }
        used = {**weights, **leaves}
        table = self._base.rounded["embedding"]
        shares: list[torch.Tensor] = []
        watch = None
        if plan.concentration_weight > 0:
            at = places(batch.token_ids.shape[1], self._draw).to(batch.token_ids.device)

            def watch(queries: torch.Tensor, keys: torch.Tensor) -> None:
                shares.append(checkpoint(missed_share, queries, keys, at, use_reentrant=False))

        hidden = self._long.hidden(used, batch.token_ids, watch=watch)
        hidden = hidden[:, :-1].flatten(0, 1)
        nats = cross_entropies(hidden, table, batch.token_ids[:, 1:].flatten())
        answer = _weighted(nats, batch.answer_weights[:, 1:].flatten())
        text = _weighted(nats, batch.text_weights[:, 1:].flatten())
        missed = torch.stack(shares).mean() if shares else answer.new_zeros(())
        loss = answer + plan.text_weight * text + plan.concentration_weight * missed
        (loss / plan.batches).backward()
        del hidden, nats
        short = self._short_loss(used, batch)
        (plan.short_weight * short / plan.batches).backward()
        torch.autograd.backward(
            [weights[name] for name in leaves], [leaf.grad for leaf in leaves.values()]
        )
        return torch.stack([one.detach() for one in (answer, text, short, missed)])

    def _short_loss(self, weights: dict[str, torch.Tensor], batch: Batch) -> torch.Tensor:
        table = self._base.rounded["embedding"]
        with torch.no_grad():
            expected = self._short.hidden(self._base.rounded, batch.short_ids)[:, :-1]
        hidden = self._long.hidden(weights, batch.short_ids)[:, :-1]
        apart = divergences(hidden.flatten(0, 1), table, expected.flatten(0, 1))
        return _weighted(apart, batch.short_weights[:, 1:].flatten())


def _weighted(nats: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    return (nats * weights).sum() / weights.sum().clamp_min(1)


def _place() -> tuple[int, int, torch.device]:
    """Return the rank, the number of processes, and the device of this one."""
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
