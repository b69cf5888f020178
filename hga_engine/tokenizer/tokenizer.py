"""Text to token ids and back, and the ids that a chat puts around its messages.

Text is data: whatever stands in it, ``encode`` gives ordinary tokens. Control tokens come from the
model's chat template alone.
"""

import codecs
import json
import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tokenizers
from tokenizers import decoders, pre_tokenizers

from hga_engine.errors import ModelFileError
from hga_engine.model import prepared
from hga_engine.model.config_json import read_json
from hga_engine.model.files import ModelFiles
from hga_engine.model.gguf_file import GgufFile, open_gguf
from hga_engine.tokenizer.byte_level import BYTE_OF
from hga_engine.tokenizer.chat_template import ChatTemplate

if TYPE_CHECKING:
    from hga_engine.tokenizer.token_counts import FastCounter

_CONTROL, _NORMAL = 3, 1
"""Token types in GGUF files."""
_END_NAMES = ("<|endoftext|>", "<|im_end|>", "<|eot_id|>", "<|end_of_text|>", "</s>")
"""Control tokens that end a text wherever a model has them; GGUF files name one end token only."""


@dataclass(frozen=True)
class Vocabulary:
    """What a tokenizer is made of."""

    pieces: tokenizers.Tokenizer
    """Byte-pair encoding of text, without control tokens."""
    added: Mapping[str, int]
    """Tokens that stand beside the encoding: control tokens and other markup."""
    control: frozenset[int]
    """Ids that never show as text."""
    end_tokens: frozenset[int]


class Tokenizer:
    """Byte-level BPE (GPT-2's) or BPE with byte fallback (SentencePiece's)."""

    def __init__(self, vocabulary: Vocabulary, template: ChatTemplate) -> None:
        self.vocabulary = vocabulary
        self.template = template
        self._pieces = vocabulary.pieces
        self._added = vocabulary.added
        self._control = vocabulary.control
        self._tokens = {number: token for token, number in self._pieces.get_vocab().items()}
        self._tokens |= {number: token for token, number in self._added.items()}
        self._added_ids = frozenset(self._added.values())
        decoder = self._pieces.decoder
        rules = json.loads(decoder.__getstate__()) if decoder is not None else {}
        kinds = [rule["type"] for rule in (rules, *rules.get("decoders", ()))]
        self._is_byte_level = "ByteLevel" in kinds
        self.strips_first_space = not self._is_byte_level and "Strip" in kinds
        """Whether the encoding puts a space before a text, to be dropped when it is shown."""
        longest_first = sorted(self._added, key=len, reverse=True)
        self._markup = re.compile(f"({'|'.join(map(re.escape, longest_first))})")
        closing = self.to_next_question()[:1]
        self.end_tokens = vocabulary.end_tokens | self._control.intersection(closing)
        self.vocab_size = max(self._tokens) + 1
        self._counter: FastCounter | None = None
        self._counter_is_made = False
        self._making_counter = threading.Lock()

    def encode(self, text: str) -> list[int]:
        """Token ids of a text; what looks like a control token in it is text as well."""
        ids: list[int] = self._pieces.encode(text, add_special_tokens=False).ids
        return ids

    def encode_with_offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Token ids of a text, and the range of characters that each is from.

        Tokens that share a character have ranges that overlap in it; a combining mark that the
        tokenizer joins with its letter is in no range.
        """
        encoded = self._pieces.encode(text, add_special_tokens=False)
        return encoded.ids, encoded.offsets

    def count(self, texts: Sequence[str]) -> list[int]:
        """How many tokens ``encode`` makes of each text; many times as fast, and thread safe."""
        counter = self._fast_counter()
        fast = counter.count(texts) if counter else [None] * len(texts)
        left = [text for text, count in zip(texts, fast, strict=True) if count is None]
        exact = iter(self._pieces.encode_batch_fast(left, add_special_tokens=False))
        return [len(next(exact).ids) if count is None else count for count in fast]

    def decode(self, ids: Sequence[int]) -> str:
        """Text of token ids, without control tokens; broken UTF-8 becomes U+FFFD."""
        detokenizer = Detokenizer(self)
        return "".join(map(detokenizer.push, ids)) + detokenizer.finish()

    def opening(self, system: str | None) -> list[int]:
        """Everything before the content of the first user message.

        Args:
            system: the system message; None: what the template says by itself.

        Raises:
            ModelFileError: the template has no place for a system message.
        """
        if system is None:
            return self._encode_markup(self.template.around(["user"])[0])
        before, between, _ = self.template.around(["system", "user"])
        return [
            *self._encode_markup(before),
            *self.encode(system),
            *self._encode_markup(between),
        ]

    def to_answer(self) -> list[int]:
        """Closes the user message and opens the assistant's."""
        return self._encode_markup(self.template.around(["user"], answer_follows=True)[1])

    def to_next_question(self) -> list[int]:
        """Closes the assistant message and opens the next user message."""
        return self._encode_markup(self.template.around(["user", "assistant", "user"])[2])

    def token_bytes(self, token_id: int) -> bytes:
        """UTF-8 bytes a token stands for, perhaps part of a character; none for control tokens."""
        token = self._tokens.get(token_id)
        if token is None or token_id in self._control:
            return b""
        if token_id in self._added_ids:
            return token.encode()
        if self._is_byte_level:
            return bytes(BYTE_OF[character] for character in token)
        if re.fullmatch("<0x[0-9A-F]{2}>", token):
            return bytes.fromhex(token[3:5])
        return token.replace("\N{LOWER ONE EIGHTH BLOCK}", " ").encode()

    def _fast_counter(self) -> "FastCounter | None":
        with self._making_counter:
            if not self._counter_is_made:
                from hga_engine.tokenizer.token_counts import fast_counter

                self._counter = fast_counter(self._pieces)
                self._counter_is_made = True
        return self._counter

    def _encode_markup(self, text: str) -> list[int]:
        """Token ids of text from the chat template, whose control tokens are meant."""
        ids: list[int] = []
        for piece in self._markup.split(text) if self._added else [text]:
            ids += [self._added[piece]] if piece in self._added else self.encode(piece)
        return ids


class Detokenizer:
    """Text of tokens as they come; a character shows once all its bytes are there."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._strip = tokenizer.strips_first_space

    def push(self, token_id: int) -> str:
        """The text that ``token_id`` completes; may be empty."""
        data = self._tokenizer.token_bytes(token_id)
        if self._strip and data:
            data = data.removeprefix(b" ")
            self._strip = False
        return self._utf8.decode(data)

    def finish(self) -> str:
        """U+FFFD if the tokens end within a character."""
        return self._utf8.decode(b"", final=True)


@lru_cache(maxsize=1)
def load_tokenizer(files: ModelFiles) -> Tokenizer:
    """The tokenizer and chat template of a model.

    Raises:
        ModelFileError: a file is missing, damaged or of an unknown kind.
    """
    if files.gguf is None:
        return _from_directory(files.path)
    kept = prepared.load_vocabulary(files)
    if kept is not None:
        return _from_kept(kept, str(files.gguf))
    tokenizer = _from_gguf(open_gguf(files.gguf))
    prepared.keep_vocabulary(files, _to_keep(tokenizer))
    return tokenizer


def _to_keep(tokenizer: Tokenizer) -> dict[str, Any]:
    """What ``_from_kept`` makes the same tokenizer of."""
    vocabulary, template = tokenizer.vocabulary, tokenizer.template
    return {
        "pieces": vocabulary.pieces.to_str(),
        "added": dict(vocabulary.added),
        "control": sorted(vocabulary.control),
        "end_tokens": sorted(vocabulary.end_tokens),
        "template": template.source,
        "named": template.tokens,
    }


def _from_kept(kept: Mapping[str, Any], origin: str) -> Tokenizer:
    vocabulary = Vocabulary(
        tokenizers.Tokenizer.from_str(kept["pieces"]),
        kept["added"],
        frozenset(kept["control"]),
        frozenset(kept["end_tokens"]),
    )
    return Tokenizer(vocabulary, ChatTemplate(kept["template"], kept["named"], origin))


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
    # llama.cpp's "smollm": every \p{N} alone, then GPT-2's expression (src/llama-vocab.cpp).
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
    # Nothing but merges may make a token of a text: no control tokens, none for the unknown.
    model |= {"vocab": vocab, "unk_token": None}
    kept = {key: definition.get(key) for key in ("normalizer", "pre_tokenizer", "decoder")}
    pieces = _build(str(path), kept | {"model": model})
    if not {"ByteLevel", "ByteFallback"} & set(re.findall(r"\w+", json.dumps(kept["decoder"]))):
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
    except Exception as error:  # the library raises nothing narrower
        raise ModelFileError(f"{origin}: the tokenizer is damaged ({error}).") from error


def _content(token: object) -> str | None:
    """A special token of tokenizer_config.json: a string or an object with one."""
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
    """Source of the chat template, and the file it is from."""
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
