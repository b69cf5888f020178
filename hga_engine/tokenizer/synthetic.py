"""A tokenizer for models with random weights."""

import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from hga_engine.tokenizer.byte_level import BYTE_OF
from hga_engine.tokenizer.chat_template import ChatTemplate
from hga_engine.tokenizer.tokenizer import Tokenizer, Vocabulary

_CONTROL = ("<|im_start|>", "<|im_end|>")
_SPACE = next(letter for letter, byte in BYTE_OF.items() if byte == ord(" "))
_CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def synthetic_tokenizer(vocab_size: int) -> Tokenizer:
    """Make a tokenizer that encodes text as one token per byte.

    Other tokens decode to words such as ``w1234``. The last two tokens are ChatML's marks, of which
    the second ends an answer.

    Args:
        vocab_size: at least 258.
    """
    letters = sorted(BYTE_OF, key=BYTE_OF.__getitem__)
    first_mark = vocab_size - len(_CONTROL)
    words = [f"{_SPACE}w{number}" for number in range(len(letters), first_mark)]
    vocab = {token: number for number, token in enumerate([*letters, *words])}
    pieces = tokenizers.Tokenizer(models.BPE(vocab, []))
    pieces.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    pieces.decoder = decoders.ByteLevel()
    marks = {mark: first_mark + number for number, mark in enumerate(_CONTROL)}
    control = frozenset(marks.values())
    vocabulary = Vocabulary(pieces, marks, control, frozenset({marks["<|im_end|>"]}))
    return Tokenizer(vocabulary, ChatTemplate(_CHATML, {}, "synthetic"))
