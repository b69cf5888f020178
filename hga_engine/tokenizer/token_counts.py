"""Fast token counts: tiktoken with the merges of the model's own tokenizer.

tiktoken joins the neighbours whose union has the lowest rank; a tokenizer joins those of its lowest
merge. The results are equal if every merge makes a new token out of earlier ones and the text of
every token encodes to that token. Merges whose token never occurs are left out. A tokenizer that
breaks the first rule gets no fast counter.
"""

import json
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from itertools import compress
from typing import Any

import numpy as np
import tiktoken
import tokenizers

from hga_engine.tokenizer.byte_level import BYTE_OF

_MAX_CHARS = 100_000
"""The tokenizer counts longer texts: a million blanks overflow tiktoken's stack."""

_BETWEEN = "\ue000\U000f1234\ue001"
"""A separator of texts, with its own token. Its characters are private-use ones."""

# As in tokenizer.json, but alternatives without look-ahead are in one group, which tiktoken's regex
# engine matches faster.
_GPT2 = r"(?: ?\p{L}+| ?\p{N}+|'(?:[sdmt]|ll|ve|re)| ?[^\s\p{L}\p{N}]+)|\s+(?!\S)|\s"
# Each \p{N} is split off before GPT-2's regex is applied, so blanks end before it.
_SINGLE_DIGITS = r"(?: ?\p{L}+|\p{N}|'(?:[sdmt]|ll|ve|re)| ?[^\s\p{L}\p{N}]+)|\s+(?![^\s\p{N}])|\s"
_QWEN = (
    r"(?:(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+)|\s+(?!\S)|\s+"
)
_QWEN_AS_PUBLISHED = _QWEN.replace("(?:(?i", "(?i").replace("+)|", "+|")


class FastCounter:
    """Counts the tokens of texts faster than the tokenizer does."""

    def __init__(self, encoding: tiktoken.Encoding, *, composes: bool) -> None:
        self._encoding = encoding
        self._between = encoding.encode_single_token(_BETWEEN)
        self._composes = composes

    def count(self, texts: Sequence[str]) -> list[int | None]:
        """Count the tokens of each text; None where only the tokenizer gives the right count."""
        if self._composes:
            texts = [unicodedata.normalize("NFC", text) for text in texts]
        can_count = [len(text) <= _MAX_CHARS and _BETWEEN not in text for text in texts]
        counts = iter(self._count(list(compress(texts, can_count))))
        return [next(counts) if can else None for can in can_count]

    def _count(self, texts: Sequence[str]) -> list[int | None]:
        if not texts:
            return []
        # One call for all texts, because the thread waits for the GIL after each call.
        ids = self._encoding.encode_to_numpy(
            _BETWEEN.join(texts), allowed_special={_BETWEEN}, disallowed_special=()
        )
        if ids.max(initial=0) > self._between:
            return [None] if len(texts) == 1 else [self._count([text])[0] for text in texts]
        ends = np.append(np.flatnonzero(ids == self._between), ids.size)
        counts: list[int | None] = (np.diff(ends, prepend=-1) - 1).tolist()
        return counts


def fast_counter(tokenizer: tokenizers.Tokenizer) -> FastCounter | None:
    """Make a counter that agrees with a tokenizer without added tokens, or return None."""
    definition = json.loads(tokenizer.to_str())
    model, split = definition["model"], _split_of(definition.get("pre_tokenizer"))
    normalizer = definition.get("normalizer")
    composes = normalizer == {"type": "NFC"}
    if split is None or (normalizer is not None and not composes):
        return None
    unsupported = ("byte_fallback", "dropout", "ignore_merges")
    if model["type"] != "BPE" or any(model.get(option) for option in unsupported):
        return None
    ranks = _ranks(model, _unreachable(tokenizer, list(model["vocab"])))
    if ranks is None:
        return None
    between = {_BETWEEN: len(ranks)}
    for byte in range(256):  # tiktoken needs all bytes, those without a token too
        ranks.setdefault(bytes([byte]), len(ranks) + 1)
    encoding = tiktoken.Encoding(
        "model", pat_str=split, mergeable_ranks=ranks, special_tokens=between
    )
    return FastCounter(encoding, composes=composes)


def _split_of(pre_tokenizer: Mapping[str, Any] | None) -> str | None:
    """Return the regex that splits a text as a pre-tokenizer does, or None for an unknown one."""
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


def _ranks(model: Mapping[str, Any], unreachable: Collection[str]) -> dict[bytes, int] | None:
    """Return the rank of each token by the merges, or None if ranks cannot express them."""
    ranks: dict[bytes, int] = {}
    if not BYTE_OF.keys() >= set("".join(model["vocab"])):
        return None
    for token in model["vocab"]:
        if len(token) == 1:
            ranks[bytes([BYTE_OF[token]])] = len(ranks)
    for merge in model["merges"]:
        left, right = merge.split(" ") if isinstance(merge, str) else merge
        if left + right in unreachable:
            continue
        parts = _bytes_of(left), _bytes_of(right)
        token = b"".join(parts)
        if token in ranks or not all(part in ranks for part in parts):
            return None
        ranks[token] = len(ranks)
    return ranks


def _unreachable(tokenizer: tokenizers.Tokenizer, tokens: Sequence[str]) -> frozenset[str]:
    """Return tokens that no text encodes to, because earlier merges use up their parts."""
    encoded = tokenizers.Tokenizer(tokenizer.model).encode_batch_fast(tokens)
    return frozenset(t for t, e in zip(tokens, encoded, strict=True) if len(e.ids) != 1)


def _bytes_of(token: str) -> bytes:
    return bytes(map(BYTE_OF.__getitem__, token))
