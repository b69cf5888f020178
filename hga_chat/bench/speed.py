"""Measures prefill and decode speed at several context lengths."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from statistics import mean
from typing import Any

import torch

from hga_engine.config import EngineConfig, SamplingParams
from hga_engine.events import Finished
from hga_engine.memory.probes import device_memory
from hga_engine.opening import LoadedModel, open_engine
from hga_engine.status import device_name

ANSWER_TOKENS = 128
QUESTION_TOKENS = 64
_WATCH_SECONDS = 0.01


def run_speed(
    model: LoadedModel,
    tokens: Sequence[int],
    contexts: Sequence[int],
    config: EngineConfig,
    note: Callable[[str], None],
) -> dict[str, Any]:
    """Prefill a text and ask two questions at each context length.

    A context holds the text, two questions of 64 tokens and two answers of 128.

    Args:
        model: the loaded model.
        tokens: the text; repeated if a context is longer.
        contexts: context lengths in tokens, each measured in a session of its own, in this order.
        config: the engine's configuration; its context is replaced.
        note: receives notes on progress.

    Returns:
        The object that ``bench speed --json`` prints. Times are in seconds. The host's peak is the
        process's so far; the device's is the maximum its driver reported during the measurement.

    Raises:
        ValueError: a context is too short to hold the questions and answers.
    """
    asked = 2 * (QUESTION_TOKENS + ANSWER_TOKENS)
    if min(contexts) <= asked:
        raise ValueError(f"a context must be above {asked} tokens")
    text = list(tokens)
    while len(text) < max(contexts):
        text += text
    device = model.weights.final_norm.device
    results: dict[int, Any] = {}
    for context in contexts:
        note(f"{context:,} tokens")
        with watched_device(device) as peak:
            used = replace(config, cache=replace(config.cache, context=context))
            if device.type != "cpu":
                # Warm up: kernels are loaded on first use.
                _one_context(model, text[: context - asked], used)
            results[context] = _one_context(model, text[: context - asked], used)
        results[context]["device_peak_bytes"] = peak[0]
        note(
            f"{context:,} tokens: prefill {results[context]['prefill_tokens_per_s']:,.0f} tok/s, "
            f"decode {results[context]['decode_tokens_per_s']:.1f} tok/s"
        )
    return {"device": device_name(device), "model": model.name, "context": results}


def _one_context(model: LoadedModel, document: list[int], config: EngineConfig) -> dict[str, Any]:
    engine = open_engine(model, config)
    try:
        began = time.perf_counter()
        for _ in engine.prefill(document):
            pass
        prefill_s = time.perf_counter() - began
        sampling = SamplingParams(max_new_tokens=ANSWER_TOKENS, ignore_end=True)
        question = document[:QUESTION_TOKENS]
        answers = []
        for _ in range(2):
            finished = [e for e in engine.answer(question, sampling) if isinstance(e, Finished)]
            answers.extend(finished)
        memory = engine.memory()
        return {
            "prefill_tokens_per_s": len(document) / prefill_s,
            "ttft_s": prefill_s + answers[0].ttft_s,
            "decode_tokens_per_s": mean(answer.decode_tokens_per_s for answer in answers),
            "follow_up_ttft_s": answers[1].ttft_s,
            "host_peak_bytes": memory.host_peak_bytes,
            "kv_host_bytes": memory.kv_host_bytes,
            "device_planned_bytes": memory.device_planned_bytes,
            "page_hit_rate": engine.page_hit_rate(),
        }
    finally:
        engine.close()


@contextmanager
def watched_device(device: torch.device) -> Iterator[list[int]]:
    """Poll the driver for a GPU's memory in use.

    Yields:
        A list with one number, the maximum of bytes so far; 0 for a CPU.
    """
    peak = [0]
    if device.type == "cpu":
        yield peak
        return
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(_WATCH_SECONDS):
            peak[0] = max(peak[0], device_memory(device).used_bytes)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield peak
    finally:
        stop.set()
        watcher.join()
