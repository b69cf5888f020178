"""Load a tokenizer from a GGUF file or a directory in Hugging Face's layout."""

import json
import re
from collections.abc import Mapping
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import models

from hga_engine.errors import ModelFileError
from hga_engine.model import weight_cache
from hga_engine.model.config_json import read_json
from hga_engine.model.files import ModelFiles
from hga_engine.model.gguf_file import open_gguf
from hga_engine.tokenizer.chat_template import ChatTemplate
from hga_engine.tokenizer.gguf import from_gguf
from hga_engine.tokenizer.tokenizer import Tokenizer, Vocabulary

_OPTIONS = ("byte_fallback", "fuse_unk", "ignore_merges")
"""What tokenizers of GGUF files set of the library's BPE, besides tokens and merges."""


@lru_cache(maxsize=1)
def load_tokenizer(files: ModelFiles) -> Tokenizer:
    """Load the tokenizer and chat template of a model.

    Raises:
        ModelFileError: a file is missing, damaged or of an unknown kind.
    """
    if files.gguf is None:
        return _from_directory(files.path)
    cached = weight_cache.load_vocabulary(files)
    if cached is not None:
        return _from_cache(cached, str(files.gguf))
    tokenizer = from_gguf(open_gguf(files.gguf))
    weight_cache.save_vocabulary(files, _to_cache(tokenizer))
    return tokenizer


def _to_cache(tokenizer: Tokenizer) -> dict[str, Any]:
    """Return the parts from which ``_from_cache`` makes the same tokenizer.

    The library parses its own format in twice the time that it takes to make a tokenizer of lists.
    """
    vocabulary, template = tokenizer.vocabulary, tokenizer.template
    steps = json.loads(vocabulary.pieces.to_str())
    model = steps.pop("model")
    return {
        "steps": steps,
        "tokens": list(model["vocab"]),
        "ids": list(model["vocab"].values()),
        "merges": list(chain.from_iterable(model["merges"])),
        "options": {name: model[name] for name in _OPTIONS},
        "added": dict(vocabulary.added),
        "control": sorted(vocabulary.control),
        "end_tokens": sorted(vocabulary.end_tokens),
        "template": template.source,
        "named": template.tokens,
    }


def _from_cache(cached: Mapping[str, Any], origin: str) -> Tokenizer:
    pieces = _build(origin, cached["steps"] | {"model": {"type": "BPE", "vocab": {}, "merges": []}})
    vocab = dict(zip(cached["tokens"], cached["ids"], strict=True))
    halves = iter(cached["merges"])
    pieces.model = models.BPE(vocab, list(zip(halves, halves, strict=True)), **cached["options"])
    vocabulary = Vocabulary(
        pieces,
        cached["added"],
        frozenset(cached["control"]),
        frozenset(cached["end_tokens"]),
    )
    return Tokenizer(vocabulary, ChatTemplate(cached["template"], cached["named"], origin))


def _from_directory(directory: Path) -> Tokenizer:
    path = directory / "tokenizer.json"
    definition = read_json(path)
    config_path = directory / "tokenizer_config.json"
    config = read_json(config_path) if config_path.exists() else {}
    try:
        entries = definition.get("added_tokens") or []
        added = {str(entry["content"]): int(entry["id"]) for entry in entries}
        control = frozenset(int(entry["id"]) for entry in entries if entry["special"])
        model = definition["model"]
        if model["type"] != "BPE":
            raise ModelFileError(f"{path}: tokenizer {model['type']!r} is not supported; BPE is.")
        vocab = {token: number for token, number in model["vocab"].items() if token not in added}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ModelFileError(f"{path}: is damaged ({error!r}).") from error
    # Text becomes tokens by merges alone: never control tokens or the unknown token.
    model |= {"vocab": vocab, "unk_token": None}
    parts = {key: definition.get(key) for key in ("normalizer", "pre_tokenizer", "decoder")}
    pieces = _build(str(path), parts | {"model": model})
    if not {"ByteLevel", "ByteFallback"} & set(re.findall(r"\w+", json.dumps(parts["decoder"]))):
        raise ModelFileError(f"{path}: the decoder is not supported; byte-level BPE is.")
    named = {
        name: content
        for name in ("bos_token", "eos_token", "unk_token", "pad_token")
        if (content := _content(config.get(name))) is not None
    }
    ends = _end_ids(directory)
    if named.get("eos_token") in added:
        ends |= {added[named["eos_token"]]}
    source, origin = _template_source(directory, config)
    template = ChatTemplate(source, named, origin)
    return Tokenizer(Vocabulary(pieces, added, control, ends), template)


def _build(origin: str, parts: Mapping[str, Any]) -> tokenizers.Tokenizer:
    try:
        return tokenizers.Tokenizer.from_str(json.dumps({"version": "1.0", **parts}))
    except Exception as error:  # the library raises no narrower class
        raise ModelFileError(f"{origin}: the tokenizer is damaged ({error}).") from error


def _content(token: object) -> str | None:
    """Return a special token of tokenizer_config.json: a string, or an object with one."""
    content = token.get("content") if isinstance(token, dict) else token
    return content if isinstance(content, str) else None


def _end_ids(directory: Path) -> frozenset[int]:
    ids: set[int] = set()
    for name in ("generation_config.json", "config.json"):
        path = directory / name
        value = read_json(path).get("eos_token_id") if path.exists() else None
        listed = value if isinstance(value, list) else [value]
        ids.update(number for number in listed if isinstance(number, int))
    return frozenset(ids)


def _template_source(directory: Path, config: Mapping[str, Any]) -> tuple[str, str]:
    """Return the source of the chat template and the file that it is from."""
    path = directory / "chat_template.jinja"
    if path.exists():
        try:
            return path.read_text("utf-8"), str(path)
        except (OSError, UnicodeDecodeError) as error:
            raise ModelFileError(f"{path}: cannot be read ({error}).") from error
    source = config.get("chat_template")
    if isinstance(source, list):
        source = next(
            (entry.get("template") for entry in source if entry.get("name") == "default"), None
        )
    if not isinstance(source, str):
        raise ModelFileError(
            f"{directory}: has no chat template. A model made for chat (often called Instruct) "
            "has one."
        )
    return source, str(directory / "tokenizer_config.json")
