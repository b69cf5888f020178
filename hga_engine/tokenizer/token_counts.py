"""Fast counts of tokens: tiktoken over the merges of the model's own tokenizer.

tiktoken joins the neighbours whose union has the lowest rank, a tokenizer those that its lowest
merge names. Both come to the same if every merge makes a token of its own out of earlier ones and
every token is what its own text encodes to; merges that break this are left out or refused here.
"""

import json
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import tiktoken
import tokenizers

from hga_engine.tokenizer.byte_level import BYTE_OF

_MAX_CHARS = 100_000
"""Longer texts are left to the tokenizer: on a million blanks tiktoken runs out of stack."""

_BETWEEN = "\ue000\U000f1234\ue001"
"""Stands between texts, as a token of its own; its characters have no meaning in Unicode."""

# Same as in tokenizer.json, but what needs no looking ahead stands in one group, which tiktoken's
# expressions then match in one go.
_GPT2 = r"(?: ?\p{L}+| ?\p{N}+|'(?:[sdmt]|ll|ve|re)| ?[^\s\p{L}\p{N}]+)|\s+(?!\S)|\s"
# Every \p{N} is split off before GPT-2's expression sees the text, so blanks end before it.
_SINGLE_DIGITS = r"(?: ?\p{L}+|\p{N}|'(?:[sdmt]|ll|ve|re)| ?[^\s\p{L}\p{N}]+)|\s+(?![^\s\p{N}])|\s"
_QWEN = (
    r"(?:(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+)|\s+(?!\S)|\s+"
)
_QWEN_AS_PUBLISHED = _QWEN.replace("(?:(?i", "(?i").replace("+)|", "+|")


class FastCounter:
    """Counts the tokens of texts without making them."""

    def __init__(self, encoding: tiktoken.Encoding, *, composes: bool) -> None:
        self._encoding = encoding
        self._between = encoding.encode_single_token(_BETWEEN)
        self._composes = composes

    def count(self, texts: Sequence[str]) -> list[int | None]:
        """How many tokens the tokenizer makes of each text; None where only it can tell."""
        if self._composes:
            texts = [unicodedata.normalize("NFC", text) for text in texts]
        taken = [len(text) <= _MAX_CHARS and _BETWEEN not in text for text in texts]
        counts = iter(
            self._count([text for text, is_taken in zip(texts, taken, strict=True) if is_taken])
        )
        return [next(counts) if is_taken else None for is_taken in taken]

    def _count(self, texts: Sequence[str]) -> list[int | None]:
        if not texts:
            return []
        # One call for all: after each call the thread would wait for Python's lock.
        ids = self._encoding.encode_to_numpy(
            _BETWEEN.join(texts), allowed_special={_BETWEEN}, disallowed_special=()
        )
        if ids.max(initial=0) > self._between:
            return [None] if len(texts) == 1 else [self._count([text])[0] for text in texts]
        ends = np.append(np.flatnonzero(ids == self._between), ids.size)
        counts: list[int | None] = (np.diff(ends, prepend=-1) - 1).tolist()
        return counts


def fast_counter(tokenizer: tokenizers.Tokenizer) -> FastCounter | None:
    """Make a counter for a tokenizer without added tokens, if there is one that agrees with it."""
    definition = json.loads(tokenizer.to_str())
    model, split = definition["model"], _split_of(definition.get("pre_tokenizer"))
    normalizer = definition.get("normalizer")
    composes = normalizer == {"type": "NFC"}
    if split is None or (normalizer is not None and not composes):
        return None
    unlike = ("byte_fallback", "dropout", "ignore_merges")
    if model["type"] != "BPE" or any(model.get(option) for option in unlike):
        return None
    ranks = _ranks(model, _never_alone(tokenizer, list(model["vocab"])))
    if ranks is None:
        return None
    between = {_BETWEEN: len(ranks)}
    for byte in range(256):  # bytes without a token: tiktoken needs them all
        ranks.setdefault(bytes([byte]), len(ranks) + 1)
    encoding = tiktoken.Encoding(
        "model", pat_str=split, mergeable_ranks=ranks, special_tokens=between
    )
    return FastCounter(encoding, composes=composes)


def _split_of(pre_tokenizer: Mapping[str, Any] | None) -> str | None:
    """The expression that finds what a pre-tokenizer splits a text into, if it is a known one."""
    steps = (pre_tokenizer or {}).get("pretokenizers", [pre_tokenizer or {}])
    *before, last = steps
    if last.get("type") != "ByteLevel" or last["add_prefix_space"]:
        return None
    if last["use_regex"]:
        if before == [{"type": "Digits", "individual_digits": True}]:
            return _SINGLE_DIGITS
        return None if before else _GPT2
    split = {"type": "Split", "behavior": "Isolated", "invert": False}
    return _QWEN if before == [split | {"pattern": {"Regex": _QWEN_AS_PUBLISHED}}] else None


def _ranks(model: Mapping[str, Any], never_alone: Collection[str]) -> dict[bytes, int] | None:
    """The order in which tokens are made; None if it takes more than an order to say."""
    ranks: dict[bytes, int] = {}
    if not BYTE_OF.keys() >= set("".join(model["vocab"])):
        return None
    for token in model["vocab"]:
        if len(token) == 1:
            ranks[bytes([BYTE_OF[token]])] = len(ranks)
    for merge in model["merges"]:
        left, right = merge.split(" ") if isinstance(merge, str) else merge
        if left + right in never_alone:
            continue
        parts = _bytes_of(left), _bytes_of(right)
        token = b"".join(parts)
        if token in ranks or not all(part in ranks for part in parts):
            return None
        ranks[token] = len(ranks)
    return ranks


def _never_alone(tokenizer: tokenizers.Tokenizer, tokens: Sequence[str]) -> frozenset[str]:
    """Tokens that no text is encoded to, since earlier merges take their parts away."""
    encoded = tokenizers.Tokenizer(tokenizer.model).encode_batch_fast(tokens)
    return frozenset(t for t, e in zip(tokens, encoded, strict=True) if len(e.ids) != 1)


def _bytes_of(token: str) -> bytes:
    return bytes(map(BYTE_OF.__getitem__, token))
