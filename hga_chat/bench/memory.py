"""Compares predicted with used memory."""

import gc
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch

from hga_chat.bench.speed import watched_device
from hga_engine.config import EngineConfig, SamplingParams, resolve
from hga_engine.memory import ledger, probes
from hga_engine.opening import LoadedModel, open_engine
from hga_engine.status import device_name

_ANSWER_TOKENS = 32
_QUESTION_TOKENS = 32


def run_memory(
    load: Callable[[], tuple[LoadedModel, Sequence[int]]],
    contexts: Sequence[int],
    config: EngineConfig,
    note: Callable[[str], None],
) -> dict[str, Any]:
    """Fill sessions of several lengths, and compare the ledger's predictions with their memory.

    Args:
        load: returns the model and a text; memory that is resident before does not count.
        contexts: context lengths in tokens, each for a session of its own, shortest first.
        config: the engine's configuration; its context is replaced.
        note: receives notes on progress.

    Returns:
        The object that ``bench memory --json`` prints. Host memory is resident memory beyond that
        before the model was loaded; GPU memory is the maximum that the driver reported.

    Raises:
        ValueError: a context is too short for a question and an answer.
    """
    asked = _QUESTION_TOKENS + _ANSWER_TOKENS
    if min(contexts) <= asked:
        raise ValueError(f"a context must be above {asked} tokens")
    before = probes.resident_bytes()
    model, tokens = load()
    text = list(tokens)
    while len(text) < max(contexts):
        text += text
    device = model.weights.final_norm.device
    results: dict[int, Any] = {}
    for context in sorted(contexts):
        note(f"{context:,} tokens")
        used = replace(config, cache=replace(config.cache, context=context))
        with watched_device(device) as peak:
            results[context] = _one_context(model, text[: context - asked], used, before)
        results[context]["device_bytes"] = peak[0]
    return {"device": device_name(device), "model": model.name, "context": results}


def _one_context(
    model: LoadedModel, document: list[int], config: EngineConfig, before: int
) -> dict[str, Any]:
    session = resolve(config, model.device_type)
    plan = ledger.predict(
        model.weights.config,
        model.weights.host_bytes(),
        session,
        torch.bfloat16,
        model.device_type,
        model.weights.dtype,
    )
    engine = open_engine(model, config)
    try:
        for _ in engine.prefill(document):
            pass
        sampling = SamplingParams(max_new_tokens=_ANSWER_TOKENS, ignore_end=True)
        for _ in engine.answer(document[:_QUESTION_TOKENS], sampling):
            pass
        figures = engine.memory()
        return {
            "host_predicted_bytes": plan.total_host,
            "host_bytes": figures.host_resident_bytes - before,
            "device_predicted_bytes": figures.device_planned_bytes,
            "weights_bytes": figures.weights_bytes,
            "index_bytes": figures.index_bytes,
            "kv_device_bytes": figures.kv_device_bytes,
            "kv_host_bytes": figures.kv_host_bytes,
            "kv_disk_bytes": figures.kv_disk_bytes,
        }
    finally:
        engine.close()
        del engine
        gc.collect()
