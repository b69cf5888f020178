"""Text to token ids and back, and the ids that a chat puts around its messages.

Text is data: ``encode`` gives ordinary tokens, even for text that looks like a control token.
Control tokens come only from the model's chat template.
"""

import codecs
import json
import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import tokenizers
from tokenizers import normalizers

from hga_engine.tokenizer.byte_level import BYTE_OF
from hga_engine.tokenizer.chat_template import ChatTemplate

if TYPE_CHECKING:
    from hga_engine.tokenizer.token_counts import FastCounter

SPACE = "\N{LOWER ONE EIGHTH BLOCK}"
"""SentencePiece's sign for a space."""

_COUNTED_PER_TOKEN = 20
"""Characters, for each token of the vocabulary, that take as long to encode as a fast
counter takes to make: two seconds for 150,000 tokens."""


@dataclass(frozen=True)
class Vocabulary:
    """The tokens of a model."""

    pieces: tokenizers.Tokenizer
    """Byte-pair encoding of text, without control tokens."""
    added: Mapping[str, int]
    """Tokens that no text encodes to: control tokens and other markup."""
    control: frozenset[int]
    """Ids that decode to no text."""
    end_tokens: frozenset[int]


class Tokenizer:
    """Byte-level BPE (GPT-2's) or BPE with byte fallback (SentencePiece's)."""

    def __init__(self, vocabulary: Vocabulary, template: ChatTemplate) -> None:
        self.vocabulary = vocabulary
        self.template = template
        self._pieces = vocabulary.pieces
        self._added = vocabulary.added
        self._control = vocabulary.control
        self._markup_of = {number: token for token, number in self._added.items()}
        decoder = self._pieces.decoder
        rules = json.loads(decoder.__getstate__()) if decoder is not None else {}
        kinds = [rule["type"] for rule in (rules, *rules.get("decoders", ()))]
        self._is_byte_level = "ByteLevel" in kinds
        self.strips_first_space = not self._is_byte_level and "Strip" in kinds
        """Whether the encoding puts a space before a text, which decoding removes."""
        longest_first = sorted(self._added, key=len, reverse=True)
        self._markup = re.compile(f"({'|'.join(map(re.escape, longest_first))})")
        closing = self.to_next_question()[:1]
        self.end_tokens = vocabulary.end_tokens | self._control.intersection(closing)
        self._counter: FastCounter | None = None
        self._has_made_counter = False
        self._counted = 0
        self._counter_lock = threading.Lock()

    @property
    def vocab_size(self) -> int:
        """Ids of all tokens are below it."""
        return max(*self._pieces.get_vocab().values(), *self._markup_of, -1) + 1

    def encode(self, text: str) -> list[int]:
        """Return the token ids of a text. What looks like a control token is text as well."""
        ids: list[int] = self._pieces.encode(text, add_special_tokens=False).ids
        return ids

    def encode_with_offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Return the token ids of a text and the range of characters that each is from.

        Ranges of tokens that share a character overlap in it. A combining mark that the tokenizer
        composes with its letter is in no range.
        """
        encoded = self._pieces.encode(text, add_special_tokens=False)
        return encoded.ids, encoded.offsets

    def count(self, texts: Sequence[str]) -> list[int]:
        """Count the tokens of each text, many times faster than ``encode``; thread-safe."""
        counter = self._fast_counter(sum(map(len, texts)))
        fast = counter.count(texts) if counter else [None] * len(texts)
        left = [text for text, count in zip(texts, fast, strict=True) if count is None]
        exact = iter(self._pieces.encode_batch_fast(left, add_special_tokens=False))
        return [len(next(exact).ids) if count is None else count for count in fast]

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of token ids, without control tokens. Invalid UTF-8 becomes U+FFFD."""
        detokenizer = Detokenizer(self)
        return "".join(map(detokenizer.push, ids)) + detokenizer.finish()

    def opening(self, system: str | None) -> list[int]:
        """Return the tokens before the content of the first user message.

        Args:
            system: the system message; None: the template's default.

        Raises:
            ModelFileError: the template has no place for a system message.
        """
        if system is None:
            return self._encode_markup(self.template.around(["user"])[0], before_text=True)
        before, between, _ = self.template.around(["system", "user"])
        return [
            *self._encode_markup(before, before_text=True),
            *self.encode(system),
            *self._encode_markup(between, after_text=True, before_text=True),
        ]

    def to_answer(self, *, thinking: bool = False) -> list[int]:
        """Return the tokens that close the user message and open the assistant's.

        Args:
            thinking: whether a model that can think before it answers is asked to.
        """
        return self._encode_markup(self._to_answer(thinking), after_text=True)

    def _to_answer(self, thinking: bool) -> str:
        return self.template.around(["user"], answer_follows=True, thinking=thinking)[1]

    @property
    def can_think(self) -> bool:
        """Whether the template asks for thoughts, or for none, as it is told."""
        return self._to_answer(True) != self._to_answer(False)

    def opens_thought(self, *, thinking: bool = False) -> bool:
        """Return whether ``to_answer`` ends with the tag that opens a thought."""
        return self._to_answer(thinking).rstrip().endswith("<think>")

    def to_next_question(self) -> list[int]:
        """Return the tokens that close the assistant message and open the next user message."""
        markup = self.template.around(["user", "assistant", "user"])[2]
        return self._encode_markup(markup, after_text=True, before_text=True)

    def token_bytes(self, token_id: int) -> bytes:
        """Return a token's UTF-8 bytes, perhaps part of a character; none for control tokens."""
        if token_id in self._control:
            return b""
        if token_id in self._markup_of:
            return self._markup_of[token_id].encode()
        token = self._pieces.id_to_token(token_id)
        if token is None:
            return b""
        if self._is_byte_level:
            return bytes(BYTE_OF[character] for character in token)
        if re.fullmatch("<0x[0-9A-F]{2}>", token):
            return bytes.fromhex(token[3:5])
        return token.replace(SPACE, " ").encode()

    def _fast_counter(self, characters: int) -> "FastCounter | None":
        """Return the counter once it is worth making, after that many characters more."""
        with self._counter_lock:
            self._counted += characters
            is_worth = self._counted >= _COUNTED_PER_TOKEN * self._pieces.get_vocab_size()
            if is_worth and not self._has_made_counter:
                from hga_engine.tokenizer.token_counts import fast_counter

                self._counter = fast_counter(self._pieces)
                self._has_made_counter = True
        return self._counter

    def _encode_markup(
        self, text: str, *, after_text: bool = False, before_text: bool = False
    ) -> list[int]:
        """Return the token ids of text from the chat template, control tokens included.

        Args:
            text: between the contents of two messages.
            after_text: whether it follows a content that is encoded by itself.
            before_text: whether such a content follows it.
        """
        if self.strips_first_space and before_text:
            text = text.removesuffix(" ")  # The content's encoding begins with it.
        ids: list[int] = []
        for number, piece in enumerate(self._markup.split(text) if self._added else [text]):
            if piece in self._added:
                ids.append(self._added[piece])
            elif after_text and number == 0 and self.strips_first_space:
                ids += self._encode_on(piece)
            else:
                ids += self.encode(piece)
        return ids

    def _encode_on(self, text: str) -> list[int]:
        """Return the token ids of a text that follows another, without a space before it."""
        if text.startswith(" "):
            return self.encode(text[1:])
        going_on = tokenizers.Tokenizer(self._pieces.model)
        going_on.normalizer = normalizers.Replace(" ", SPACE)
        ids: list[int] = going_on.encode(text).ids
        return ids


class Detokenizer:
    """Decodes a stream of tokens; a character appears once all its bytes are known."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._strip = tokenizer.strips_first_space

    def push(self, token_id: int) -> str:
        """Return the text that ``token_id`` completes, which may be empty."""
        data = self._tokenizer.token_bytes(token_id)
        if self._strip and data:
            data = data.removeprefix(b" ")
            self._strip = False
        return self._utf8.decode(data)

    def finish(self) -> str:
        """Return U+FFFD if the tokens end within a character, else nothing."""
        return self._utf8.decode(b"", final=True)
