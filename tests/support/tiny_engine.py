"""Engines over tiny random models in float64, and the same models with torch's own attention."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from hga_engine.config import CacheConfig, ModelConfig, Routing, SamplingParams, SessionConfig
from hga_engine.engine import Engine
from hga_engine.events import Event, Finished, PrefillProgress, TextDelta
from hga_engine.model.decoder import Decoder
from hga_engine.model.types import LayerWeights, ModelWeights
from tests.support.plain_routing import SMALL

VOCAB = 64
CONTEXT = 256
PARTIAL = replace(SMALL, scoring_stride=2)
FULL = replace(
    PARTIAL,
    decode_budget=99,
    prefill_budget=99,
    paper_chunks=99,
)
WHOLE_BINS = replace(
    FULL,
    chunk_size=32,
    group_size=16,
    prefill_group_size=16,
    prefill_block=32,
    paper_group_size=16,
    sink_tokens=32,
    trace_bin_tokens=16,
)
"""Attention to everything, in groups as large as a trace bin."""
LLAMA = ModelConfig(
    architecture="llama",
    num_layers=3,
    hidden_size=24,
    num_query_heads=6,
    num_kv_heads=2,
    head_dim=16,
    intermediate_size=40,
    vocab_size=VOCAB,
    max_positions=CONTEXT,
    rope_base=10_000.0,
    rms_norm_eps=1e-5,
    tie_embeddings=False,
)
MOE = replace(
    LLAMA,
    architecture="qwen3_moe",
    num_experts=4,
    experts_per_token=2,
    expert_intermediate_size=20,
)


class FakeTokenizer:
    """A letter a token; the last two are the two bytes of an e with an acute accent."""

    vocab_size = VOCAB
    strips_first_space = False

    def __init__(self, end_tokens: Sequence[int] = ()) -> None:
        self.end_tokens = frozenset(end_tokens)

    def token_bytes(self, token_id: int) -> bytes:
        if token_id < VOCAB - 2:
            return bytes([0x40 + token_id])
        return [b"\xc3", b"\xa9"][token_id - VOCAB + 2]


def random_weights(
    config: ModelConfig, seed: int = 0, dtype: torch.dtype = torch.float64
) -> ModelWeights:
    """Weights that keep hidden states near unit size, and attention away from uniform."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int, size: float = 1.0) -> torch.Tensor:
        values = torch.randn(shape, generator=generator, dtype=torch.float64)
        return (values * size / math.sqrt(shape[-1])).to(dtype)

    def norm(size: int) -> torch.Tensor:
        return (1 + 0.1 * torch.randn(size, generator=generator, dtype=torch.float64)).to(dtype)

    hidden, dim = config.hidden_size, config.head_dim
    rows = (config.num_query_heads + 2 * config.num_kv_heads) * dim
    layers = []
    for layer in range(config.num_layers):
        experts = (config.num_experts,) if config.has_experts(layer) else ()
        width = config.expert_intermediate_size if experts else config.intermediate_size
        layers.append(
            LayerWeights(
                attention_norm=norm(hidden),
                qkv=draw(rows, hidden, size=1.7),
                output=draw(hidden, config.num_query_heads * dim, size=3.0),
                mlp_norm=norm(hidden),
                gate_up=draw(*experts, 2 * width, hidden),
                down=draw(*experts, hidden, width),
                q_norm=2 * norm(dim) if config.traits.has_qk_norm else None,
                k_norm=norm(dim) if config.traits.has_qk_norm else None,
                expert_gate=draw(config.num_experts, hidden) if experts else None,
            )
        )
    embedding = draw(config.vocab_size, hidden, size=math.sqrt(hidden))
    lm_head = draw(config.vocab_size, hidden)
    return ModelWeights(config, embedding, tuple(layers), norm(hidden), lm_head)


def make_engine(
    model: ModelConfig = LLAMA,
    router: Routing = PARTIAL,
    *,
    slice_tokens: int = 32,
    end_tokens: Sequence[int] = (),
    seed: int = 0,
    context: int = CONTEXT,
    host_budget_bytes: int | None = None,
    saved_dir: Path | None = None,
) -> Engine:
    cache = CacheConfig(context, host_budget_bytes, saved_dir=saved_dir)
    config = SessionConfig(routing=router, cache=cache, slice_tokens=slice_tokens)
    tokenizer: Any = FakeTokenizer(end_tokens)
    return Engine(random_weights(model, seed), tokenizer, config, "tiny", "0" * 64)


def random_tokens(count: int, seed: int = 0) -> list[int]:
    generator = torch.Generator().manual_seed(1000 + seed)
    return torch.randint(VOCAB, (count,), generator=generator).tolist()


@dataclass(frozen=True)
class Answer:
    """The events of one answer."""

    events: list[Event]

    @property
    def deltas(self) -> list[TextDelta]:
        return [event for event in self.events if isinstance(event, TextDelta)]

    @property
    def tokens(self) -> list[int]:
        return [delta.token_id for delta in self.deltas if delta.token_id >= 0]

    @property
    def text(self) -> str:
        return "".join(delta.text for delta in self.deltas)

    @property
    def progress(self) -> list[PrefillProgress]:
        return [event for event in self.events if isinstance(event, PrefillProgress)]

    @property
    def finished(self) -> Finished:
        last = self.events[-1]
        assert isinstance(last, Finished)
        assert sum(isinstance(event, Finished) for event in self.events) == 1
        return last


def ask(engine: Engine, prompt: Sequence[int], count: int = 8, **sampling: Any) -> Answer:
    return Answer(list(engine.answer(prompt, SamplingParams(max_new_tokens=count, **sampling))))


def read(engine: Engine, tokens: Sequence[int]) -> None:
    for _ in engine.prefill(tokens):
        pass


def dense_pass(
    model: ModelConfig,
    tokens: Sequence[int],
    seed: int = 0,
    unseen: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The model with full causal attention, but for pairs [tokens, tokens] that are ``unseen``.

    Returns:
        logits [tokens, vocab] and attention weights [layers, query_heads, tokens, tokens].
    """
    decoder = Decoder(random_weights(model, seed))
    hidden = decoder.embed(torch.tensor(list(tokens)))
    all_weights = []
    for layer in range(model.num_layers):
        queries, keys, values = decoder.project(layer, hidden, 0)
        keys, values = (t.repeat_interleave(model.heads_per_kv, 1) for t in (keys, values))
        scores = torch.einsum("qhd,khd->hqk", queries, keys) / math.sqrt(model.head_dim)
        hidden_later = torch.ones(len(tokens), len(tokens), dtype=torch.bool).triu(1)
        if unseen is not None:
            hidden_later |= unseen
        weights = scores.masked_fill(hidden_later, -math.inf).softmax(-1)
        hidden = decoder.finish(layer, hidden, torch.einsum("hqk,khd->qhd", weights, values))
        all_weights.append(weights)
    return decoder.logits(hidden), torch.stack(all_weights)


def dense_answer(model: ModelConfig, prompt: Sequence[int], count: int, seed: int = 0) -> list[int]:
    """Greedy tokens after a prompt, the whole computed anew for each."""
    tokens = list(prompt)
    for _ in range(count):
        tokens.append(int(dense_pass(model, tokens, seed)[0][-1].argmax()))
    return tokens[len(prompt) :]
