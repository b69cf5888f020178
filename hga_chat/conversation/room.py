"""Room for more tokens: which contexts fit in memory, and how long another prefill takes."""

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from hga_engine.errors import LongContextError, OutOfMemoryError
from hga_engine.timing import prefill_work

if TYPE_CHECKING:
    from hga_chat.conversation.conversation import Conversation
    from hga_engine.protocol import EngineProtocol

_TIMED_TOKENS = 256
_LEAST_TIMED_TOKENS = 64


def needs_new_prefill(engine: "EngineProtocol", context: int) -> bool:
    """Return whether K/V differs in a session of another context: if RoPE is scaled by it."""
    own = engine.config.cache.context
    return context != own and max(context, own) > engine.model_config.max_positions


def require_fit(engine: "EngineProtocol", context: int) -> None:
    """Check a session of another context in place of an open one.

    Raises:
        LongContextError: the model cannot be used for such a context.
        OutOfMemoryError: it does not fit in memory.
    """
    import torch

    from hga_engine.memory import ledger, probes
    from hga_engine.model.rope import for_context

    for_context(engine.model_config, context)
    held, cache = engine.memory(), replace(engine.config.cache, context=context)
    is_on_gpu = held.device_total_bytes > 0
    weights = 0 if is_on_gpu else held.weights_bytes
    plan = ledger.predict(
        engine.model_config,
        weights,
        replace(engine.config, cache=cache),
        torch.bfloat16,
        "cuda" if is_on_gpu else "cpu",
        torch.float32,
    )
    freed = weights + held.index_bytes + held.kv_host_bytes
    disk = probes.available_disk_bytes(cache)
    ledger.check(plan, probes.available_memory_bytes() + freed, disk)


def larger_context(engine: "EngineProtocol") -> int | None:
    """Return a context with room for many more turns that fits in memory; None if none does.

    It is twice as long, or native if that is less.
    """
    own, native = engine.config.cache.context, engine.model_config.max_positions
    larger = min(2 * own, native) if own < native else 2 * own
    try:
        require_fit(engine, larger)
    except (LongContextError, OutOfMemoryError):
        return None
    return larger


def prefill_seconds(conversation: "Conversation", tokens: int) -> float | None:
    """Estimate how long a prefill of so many tokens takes with the same model.

    By the last prefill of this conversation or, without, by one of a few tokens, which are then
    dropped again; None if there is no room for these.
    """
    engine = conversation.engine
    pace = conversation.pace or _measured_pace(engine)
    return pace * prefill_work(engine.model_config, tokens) if pace else None


def _measured_pace(engine: "EngineProtocol") -> float | None:
    held = engine.num_tokens
    count = min(_TIMED_TOKENS, engine.config.cache.context - held, held)
    if count < _LEAST_TIMED_TOKENS:
        return None
    text = engine.token_ids[:count]
    began = time.perf_counter()
    for _ in engine.prefill(text):
        pass
    seconds = time.perf_counter() - began
    engine.truncate(held)
    model = engine.model_config
    return seconds / (prefill_work(model, held + count) - prefill_work(model, held))
