"""How fast this machine reads and answers, at several context lengths."""

import time
from collections.abc import Callable, Sequence
from statistics import mean
from typing import Any

from hga_chat.bench.text import standard_text
from hga_engine.config import CacheConfig, EngineConfig, RouterConfig, SamplingParams
from hga_engine.engine import open_engine, prepare_model
from hga_engine.events import Finished
from hga_engine.model.files import ModelFiles
from hga_engine.status import device_name

ANSWER_TOKENS = 128
QUESTION_TOKENS = 64


def run_speed(
    files: ModelFiles,
    contexts: Sequence[int],
    router: RouterConfig,
    note: Callable[[str], None],
    host_budget_bytes: int | None = None,
) -> dict[str, Any]:
    """Read, answer and ask again at each context length.

    A context holds the text, two questions of 64 tokens and two answers of 128.

    Args:
        files: the model.
        contexts: tokens, each measured in a session of its own, in this order.
        router: which router, and its budgets.
        note: told what is going on.
        host_budget_bytes: K/V kept in host memory; None: all.

    Returns:
        The object that ``bench speed --json`` prints. Times are seconds; peaks are those of the
        process up to then.

    Raises:
        ValueError: a context is too short to hold the questions and answers.
    """
    asked = 2 * (QUESTION_TOKENS + ANSWER_TOKENS)
    if min(contexts) <= asked:
        raise ValueError(f"a context must be above {asked} tokens")
    model = prepare_model(files)
    tokens = model.tokenizer.encode(standard_text())
    while len(tokens) < max(contexts):
        tokens = tokens + tokens
    question = tokens[:QUESTION_TOKENS]
    sampling = SamplingParams(max_new_tokens=ANSWER_TOKENS, ignore_end=True)
    results: dict[int, Any] = {}
    for context in contexts:
        note(f"{context:,} tokens")
        engine = open_engine(
            model,
            EngineConfig(
                router=router,
                cache=CacheConfig(context=context, host_budget_bytes=host_budget_bytes),
            ),
        )
        document = tokens[: context - asked]
        began = time.perf_counter()
        for _ in engine.read(document):
            pass
        prefill_s = time.perf_counter() - began
        answers = []
        for _ in range(2):
            finished = [e for e in engine.answer(question, sampling) if isinstance(e, Finished)]
            answers.extend(finished)
        memory = engine.memory()
        hits = engine.page_hit_rate()
        engine.close()
        results[context] = {
            "prefill_tokens_per_s": len(document) / prefill_s,
            "ttft_s": prefill_s + answers[0].ttft_s,
            "decode_tokens_per_s": mean(answer.decode_tokens_per_s for answer in answers),
            "follow_up_ttft_s": answers[1].ttft_s,
            "device_peak_bytes": memory.device_peak_bytes,
            "host_peak_bytes": memory.host_peak_bytes,
            "page_hit_rate": hits,
        }
        note(
            f"{context:,} tokens: read at {results[context]['prefill_tokens_per_s']:,.0f} tok/s, "
            f"answered at {results[context]['decode_tokens_per_s']:.1f} tok/s"
        )
    return {"device": device_name(), "model": files.name, "context": results}
