"""Compiling kernels before the first session needs them."""

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from hga_engine.config import EngineConfig, SamplingParams, SessionConfig, resolve
from hga_engine.engine import Engine
from hga_engine.memory.probes import is_gpu
from hga_engine.tiers import plan_session

if TYPE_CHECKING:
    from hga_engine.opening import LoadedModel

_ABOUT = 95
"""Kernels that a model with experts takes at 64K; others take fewer."""
_LAYERS = 3
"""Layers of the model in a rehearsal: the first, one between, the last."""
_QUESTIONS = (2, 5, 13, 17, 30, 60, 65, 120, 250, 500)
"""Lengths for which launches differ."""


def compile_kernels(
    model: "LoadedModel",
    config: EngineConfig,
    progress: Callable[[str, float], None] | None = None,
) -> None:
    """Compile what sessions of a model need, unless that was done on this machine before.

    A session over a few of the model's layers prefills nearly a full context and answers questions
    of several lengths. On a CPU there is nothing to do.

    Args:
        model: in memory.
        config: of the sessions.
        progress: called with what is being done and how far it is, 0 to 1, while kernels compile.

    Raises:
        OutOfMemoryError: a session of this configuration does not fit.
    """
    weights = model.weights
    if not is_gpu(weights.final_norm.device):
        return
    # Needs triton, so it is imported only where there is a GPU.
    from hga_kernels.gpu import compiling

    session = resolve(config, model.device_type)
    kinds = sorted(weights.kinds())
    layers = min(_LAYERS, weights.config.num_layers)
    few = replace(weights.config, num_layers=layers)
    mark = compiling.mark(
        repr((few, kinds, session.routing, session.cache.context, session.slice_tokens))
    )
    if mark.exists():
        return
    # Check memory before the slow compile.
    plan_session(weights, session, torch.bfloat16)

    def tell(count: int) -> None:
        if progress is not None:
            progress("Compiling kernels for this GPU, once", min(count / _ABOUT, 0.99))

    with compiling.report_compiled(tell):
        first = replace(weights, config=few, layers=weights.layers[:layers])
        _rehearse(replace(model, weights=first), session)
    mark.parent.mkdir(parents=True, exist_ok=True)
    mark.touch()


def _rehearse(model: "LoadedModel", config: SessionConfig) -> None:
    """Prefill and answer in a session of its own."""
    context = config.cache.context
    engine = Engine(
        model.weights,
        model.tokenizer,
        replace(config, cache=replace(config.cache, host_budget_bytes=None, saved_dir=None)),
        model.name,
        model.fingerprint,
        torch.bfloat16,
    )
    sampling = SamplingParams(max_new_tokens=2, ignore_end=True)
    text = [number % engine.model_config.vocab_size for number in range(context)]
    try:
        for _ in engine.prefill(text[: context - context // 16]):
            pass
        for length in _QUESTIONS:
            if engine.num_tokens + length + sampling.max_new_tokens <= context:
                for _ in engine.answer(text[:length], sampling):
                    pass
    finally:
        engine.close()
