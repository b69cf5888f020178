"""Load a tokenizer from a GGUF file or a directory in Hugging Face's layout."""

import json
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import decoders, pre_tokenizers

from hga_engine.errors import ModelFileError
from hga_engine.model import weight_cache
from hga_engine.model.config_json import read_json
from hga_engine.model.files import ModelFiles
from hga_engine.model.gguf_file import GgufFile, open_gguf
from hga_engine.tokenizer.chat_template import ChatTemplate
from hga_engine.tokenizer.tokenizer import Tokenizer, Vocabulary

_CONTROL, _NORMAL = 3, 1
"""Token types in GGUF files."""

_END_NAMES = ("<|endoftext|>", "<|im_end|>", "<|eot_id|>", "<|end_of_text|>", "</s>")
"""Control tokens that end a text in any model that has them. GGUF files name only one."""


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
    tokenizer = _from_gguf(open_gguf(files.gguf))
    weight_cache.save_vocabulary(files, _to_cache(tokenizer))
    return tokenizer


def _to_cache(tokenizer: Tokenizer) -> dict[str, Any]:
    """Return the parts from which ``_from_cache`` makes the same tokenizer."""
    vocabulary, template = tokenizer.vocabulary, tokenizer.template
    return {
        "pieces": vocabulary.pieces.to_str(),
        "added": dict(vocabulary.added),
        "control": sorted(vocabulary.control),
        "end_tokens": sorted(vocabulary.end_tokens),
        "template": template.source,
        "named": template.tokens,
    }


def _from_cache(cached: Mapping[str, Any], origin: str) -> Tokenizer:
    vocabulary = Vocabulary(
        tokenizers.Tokenizer.from_str(cached["pieces"]),
        cached["added"],
        frozenset(cached["control"]),
        frozenset(cached["end_tokens"]),
    )
    return Tokenizer(vocabulary, ChatTemplate(cached["template"], cached["named"], origin))


def _from_gguf(file: GgufFile) -> Tokenizer:
    kind = file.value("tokenizer.ggml.model", str), file.value("tokenizer.ggml.pre", str, "default")
    if kind != ("gpt2", "smollm"):
        raise ModelFileError(f"{file.path}: tokenizer {'/'.join(kind)} is not supported.")
    tokens = file.values("tokenizer.ggml.tokens", str)
    types = file.values("tokenizer.ggml.token_type", int)
    merges = [tuple(merge.split(" ")) for merge in file.values("tokenizer.ggml.merges", str)]
    if len(types) != len(tokens) or not set(types) <= {_NORMAL, _CONTROL}:
        raise ModelFileError(f"{file.path}: tokenizer.ggml.token_type is damaged.")
    added = {
        token: number
        for number, (token, type_) in enumerate(zip(tokens, types, strict=True))
        if type_ == _CONTROL
    }
    vocab = {token: number for number, token in enumerate(tokens) if token not in added}
    model = {"type": "BPE", "vocab": vocab, "merges": merges}
    pieces = _build(str(file.path), {"model": model})
    # As llama.cpp's "smollm" (src/llama-vocab.cpp): split off each \p{N}, then use GPT-2's regex.
    pieces.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    pieces.decoder = decoders.ByteLevel()
    named = {
        f"{name}_token": tokens[file.value(f"tokenizer.ggml.{name}_token_id", int)]
        for name in ("bos", "eos")
    }
    ends = {added[name] for name in (*_END_NAMES, named["eos_token"]) if name in added}
    template = ChatTemplate(file.value("tokenizer.chat_template", str), named, str(file.path))
    control = frozenset(added.values())
    return Tokenizer(Vocabulary(pieces, added, control, frozenset(ends)), template)


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
