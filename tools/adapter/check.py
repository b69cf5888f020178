"""Check an adapter on short texts, short questions and distant facts."""

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from hga_chat.bench.text import cut, depths, make_needles, standard_text
from hga_engine.model.files import ModelFiles
from hga_engine.tokenizer.load import load_tokenizer
from hga_engine.tokenizer.tokenizer import Tokenizer
from tools.adapter import data
from tools.adapter.adapter_file import read_adapter
from tools.adapter.checkable import PROMPTS
from tools.adapter.losses import cross_entropies
from tools.adapter.model import ROPE_BASE, Cache, Network, Tensors, load_base, merge

_WINDOW = 2_048
_PROMPT_TOKENS, _NEEDLE_TOKENS = 48, 24
_NEEDLES = 10


@dataclass(frozen=True)
class Subject:
    """Weights with the RoPE base that belongs to them."""

    network: Network
    weights: Tensors
    tokenizer: Tokenizer
    device: torch.device

    def nats(self, token_ids: Sequence[int]) -> float:
        """Return the mean nats per token of a text with nothing before it."""
        tokens = torch.tensor([token_ids], device=self.device)
        hidden = self.network.hidden(self.weights, tokens)[0]
        table = self.weights["embedding"]
        return float(cross_entropies(hidden[:-1], table, tokens[0, 1:]).mean())

    def answer(self, prompt: Sequence[int], most: int, cache: Cache | None = None) -> str:
        """Return the greedy answer to a prompt; the cache is extended."""
        cache = [] if cache is None else cache
        said: list[int] = []
        tokens = list(prompt)
        while len(said) < most:
            hidden = self.network.hidden(
                self.weights, torch.tensor([tokens], device=self.device), cache
            )
            token = int(functional.linear(hidden[0, -1], self.weights["embedding"]).argmax())
            if token in self.tokenizer.end_tokens:
                break
            said.append(token)
            tokens = [token]
        return self.tokenizer.decode(said)


@torch.inference_mode()
def run_checks(
    data_path: Path,
    gguf: Path,
    adapter: Iterable[Path],
    context: int,
    seeds: Sequence[int],
    parts: Sequence[str],
    windows: int,
) -> dict[str, Any]:
    """Measure the base model and the adapted one.

    Args:
        data_path: file of texts.
        gguf: the base model.
        adapter: files of the adapter; none: the base model at the adapter's RoPE base.
        context: tokens in which needles are planted.
        seeds: of needles.
        parts: of ``nats``, ``prompts`` and ``needles``.
        windows: of 2,048 tokens, of each kind of text.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    base = load_base(gguf, device, torch.bfloat16)
    factors: dict[str, torch.Tensor] = {}
    for path in adapter:
        factors |= read_adapter(path, device)
    tokenizer = load_tokenizer(ModelFiles("base", None, gguf))
    config = base.config
    plain = Subject(Network(config, config.rope_base), base.rounded, tokenizer, device)
    adapted = Subject(Network(config, ROPE_BASE), merge(base, factors), tokenizer, device)
    texts = data.read(data_path)
    figures: dict[str, Any] = {}
    if "nats" in parts:
        figures["nats_2k"] = {
            kind: _compare_nats(plain, adapted, texts.of(kind, held_out=True), windows)
            for kind in ("prose", "code", "manual")
        }
    if "prompts" in parts:
        figures["prompts"] = _compare_prompts(plain, adapted)
    if "needles" in parts:
        sources = {"code": standard_text()} | {
            kind: "\n".join(text.text for text in texts.of(kind, held_out=True))
            for kind in ("prose", "manual")
        }
        figures["needles"] = {
            name: [_needles(adapted, text, context, seed) for seed in seeds]
            for name, text in sources.items()
        }
    return figures


def _compare_nats(
    plain: Subject, adapted: Subject, texts: Sequence[data.Text], count: int
) -> dict[str, float]:
    ids = [plain.tokenizer.encode(text.text) for text in texts]
    windows = [part[at : at + _WINDOW] for part in ids for at in range(0, len(part), _WINDOW)]
    windows = [window for window in windows if len(window) == _WINDOW]
    windows = random.Random(0).sample(windows, min(len(windows), count))
    means = [
        sum(subject.nats(window) for window in windows) / max(len(windows), 1)
        for subject in (plain, adapted)
    ]
    return {"base": means[0], "adapted": means[1], "gap": means[1] - means[0]}


def _compare_prompts(plain: Subject, adapted: Subject) -> dict[str, Any]:
    right: dict[str, list[bool]] = {}
    answers = []
    for name, subject in (("base", plain), ("adapted", adapted)):
        tokenizer = subject.tokenizer
        right[name] = []
        for one in PROMPTS:
            ids = [*tokenizer.opening(None), *tokenizer.encode(one.prompt), *tokenizer.to_answer()]
            answer = subject.answer(ids, _PROMPT_TOKENS)
            right[name].append(one.is_right(answer))
            if name == "adapted":
                answers.append(answer)
    lost = [
        {"prompt": one.prompt, "answer": answer}
        for one, answer, before, now in zip(
            PROMPTS, answers, right["base"], right["adapted"], strict=True
        )
        if before and not now
    ]
    return {"base": sum(right["base"]), "adapted": sum(right["adapted"]), "lost": lost}


def _needles(subject: Subject, text: str, context: int, seed: int) -> dict[str, Any]:
    """Plant facts and ask for them as ``bench quality`` does."""
    tokenizer = subject.tokenizer
    needles = make_needles(_NEEDLES, seed)
    ids = cut(
        tokenizer.encode,
        tokenizer.decode,
        text,
        [needle.fact for needle in needles],
        depths(_NEEDLES),
        context,
    )
    cache: Cache = []
    subject.network.hidden(subject.weights, torch.tensor([ids], device=subject.device), cache)
    found, answers = [], []
    for needle in needles:
        prompt = [
            *tokenizer.to_next_question(),
            *tokenizer.encode(needle.question),
            *tokenizer.to_answer(),
        ]
        answers.append(subject.answer(prompt, _NEEDLE_TOKENS, list(cache)))
        found.append(needle.answer in answers[-1])
    wrong = [f"{n.answer}: {a}" for n, a, f in zip(needles, answers, found, strict=True) if not f]
    return {"seed": seed, "found": sum(found), "of": len(found), "wrong": wrong}
