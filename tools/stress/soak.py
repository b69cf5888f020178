"""Prefill, answer, cancel and truncate at random for a while, and check that nothing drifts.

Now and then the session is truncated to its document and a fixed question is asked again: the
answer must be the same, token by token. Memory may not grow in the second half of the run. With
``--synthetic``, the model has random weights of a known geometry.

    python -m tools.stress.soak --seconds 1800 --context 65536 [--synthetic NAME] [--layers 48]
"""

import argparse
import gc
import random
import sys
import threading
import time
from dataclasses import replace

import torch

from hga_chat.bench.text import standard_text
from hga_chat.models import EMBEDDED_MODEL, geometry_of, pull_model
from hga_engine.config import CacheConfig, EngineConfig, SamplingParams
from hga_engine.engine import Engine
from hga_engine.events import TextDelta
from hga_engine.model.synthetic import synthetic_tokens
from hga_engine.opening import LoadedModel, open_engine, prepare_model, synthetic_model

FIXED_TOKENS = 48
GROWTH_BYTES = 16 << 20
LOOKS = 10
"""How many times memory is measured."""


def answer(engine: Engine, question: list[int], count: int, stop_after: int = -1) -> list[int]:
    """Return greedy tokens; cancel after ``stop_after`` of them unless that is negative."""
    cancel = threading.Event()
    tokens: list[int] = []
    sampling = SamplingParams(max_new_tokens=count, ignore_end=True)
    for event in engine.answer(question, sampling, cancel):
        if len(tokens) == stop_after:
            cancel.set()
        if isinstance(event, TextDelta) and event.token_id >= 0:
            tokens.append(event.token_id)
    return tokens


def load(options: argparse.Namespace) -> tuple[LoadedModel, list[int]]:
    """Return the model and a text for it."""
    if options.synthetic is None:
        model = prepare_model(pull_model(options.model, print))
        return model, model.tokenizer.encode(standard_text())
    geometry = geometry_of(options.synthetic)
    geometry = replace(geometry, num_layers=options.layers or geometry.num_layers)
    model = synthetic_model(options.synthetic, geometry)
    return model, synthetic_tokens(geometry.vocab_size - 2, options.context)


def memory(engine: Engine) -> int:
    """Return the bytes in use: of the GPU where there is one, else of this process."""
    gc.collect()
    figures = engine.memory()
    return figures.device_used_bytes or figures.host_resident_bytes


def main() -> int:
    """Run, print what was done, and fail if an answer changed or memory grew."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--context", type=int, default=65_536)
    parser.add_argument("--document", type=int, default=None)
    parser.add_argument("--model", default=EMBEDDED_MODEL)
    parser.add_argument("--synthetic")
    parser.add_argument("--layers", type=int)
    parser.add_argument("--device-limit-gib", type=float)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    draw = random.Random(options.seed)
    limit = int(options.device_limit_gib * 2**30) if options.device_limit_gib else None
    model, text = load(options)
    while len(text) < options.context:
        text += text
    cache = CacheConfig(context=options.context, device_limit_bytes=limit)
    engine = open_engine(model, EngineConfig(cache=cache))
    size = options.document or options.context - 2048
    for _ in engine.prefill(text[:size]):
        pass
    question = text[:24]
    expected = answer(engine, question, FIXED_TOKENS)
    engine.truncate(size)
    # By now, everything that is allocated once has been allocated.
    for _ in engine.prefill(text[:200]):
        pass
    engine.truncate(size)
    began, used = time.monotonic(), [memory(engine)]
    done = dict.fromkeys(("answers", "cancelled", "extended", "truncated", "compared"), 0)
    wrong = 0
    while time.monotonic() - began < options.seconds:
        room = options.context - engine.num_tokens
        kind = draw.choice(list(done))
        asked = text[draw.randrange(1000) :][: draw.randrange(1, 70)]
        if kind == "compared" or room < 400:
            engine.truncate(size)
            wrong += answer(engine, question, FIXED_TOKENS) != expected
            engine.truncate(size)
            kind = "compared"
        elif kind == "truncated":
            engine.truncate(draw.randrange(size, engine.num_tokens + 1))
        elif kind == "extended":
            for _ in engine.prefill(text[: draw.randrange(1, 300)]):
                pass
        else:
            count = draw.randrange(1, 120)
            answer(engine, asked, count, draw.randrange(count) if kind == "cancelled" else -1)
        done[kind] += 1
        if time.monotonic() - began > len(used) * options.seconds / LOOKS:
            used.append(memory(engine))
    torch.cuda.synchronize() if torch.cuda.is_available() else None
    used.append(memory(engine))
    grown = used[-1] - used[len(used) // 2]
    print(
        f"{time.monotonic() - began:.0f} s: {done}; wrong answers {wrong}; memory {grown:+,} bytes "
        f"in the second half; MiB above the start {[(u - used[0]) >> 20 for u in used]}"
    )
    return int(wrong > 0 or grown > GROWTH_BYTES)


if __name__ == "__main__":
    sys.exit(main())
