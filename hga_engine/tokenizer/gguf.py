"""Tokenizers of GGUF files: byte-level BPE, and SentencePiece's BPE with byte fallback."""

from collections.abc import Mapping, Sequence

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers

from hga_engine.errors import ModelFileError
from hga_engine.model.gguf_file import GgufFile
from hga_engine.tokenizer.chat_template import ChatTemplate
from hga_engine.tokenizer.tokenizer import SPACE, Tokenizer, Vocabulary

_TYPES = _NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED, _BYTE = (*range(1, 7),)
"""Token types in GGUF files."""

_END_NAMES = (
    "<|endoftext|>",
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end_of_text|>",
    "</s>",
    "<|end|>",
    "<｜end▁of▁sentence｜>",
    "<|EOT|>",
)
"""Control tokens that end a text in any model that has them. GGUF files name only some."""

_CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
"""The template of models that have its tokens and no template of their own."""

_NAMED = {
    "bos": "bos",
    "eos": "eos",
    "eot": "eot",
    "eom": "eom",
    "unk": "unknown",
    "pad": "padding",
}
"""Special tokens by the name they have in chat templates and in GGUF files."""


# What text is split by before bytes are merged: the regexes of the models' own tokenizer.json, as
# llama.cpp lists them by name in src/llama-vocab.cpp.
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_AFTER_WORDS = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_QWEN2 = _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}" + _AFTER_WORDS
_LLAMA3 = _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}" + _AFTER_WORDS
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_TEKKEN = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*|\p{{N}}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


def _split(*patterns: str) -> list[pre_tokenizers.PreTokenizer]:
    """Split by one regex after the other, then into bytes."""
    splits = [pre_tokenizers.Split(tokenizers.Regex(p), "isolated") for p in patterns]
    return [*splits, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]


def _by_digit() -> list[pre_tokenizers.PreTokenizer]:
    """Split off each digit, then by GPT-2's regex."""
    digits = pre_tokenizers.Digits(individual_digits=True)
    return [digits, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)]


_COMPOSE = ("qwen2", "deepseek-r1-qwen")
"""Those that bring text to Unicode's form C first."""
_LLAMA3_NAMES = ("llama-bpe", "llama-v3", "llama3")
_KEEP_WORDS = (*_LLAMA3_NAMES, "tekken")
"""Those that take a word that is a token as that token, without merges."""


_PRE_TOKENIZERS: dict[str, list[pre_tokenizers.PreTokenizer]] = {
    "default": _split(r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", r"[0-9][0-9][0-9]"),
    "gpt-2": [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)],
    **dict.fromkeys(("smollm", "starcoder", "refact", "command-r"), _by_digit()),
    **dict.fromkeys(_COMPOSE, _split(_QWEN2)),
    **dict.fromkeys(_LLAMA3_NAMES, _split(_LLAMA3)),
    "tekken": _split(_TEKKEN),
    "deepseek-coder": _split(
        r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-\ud7ff]+", r"\p{N}"
    ),
}
"""By ``tokenizer.ggml.pre``."""


def from_gguf(file: GgufFile) -> Tokenizer:
    """Make the tokenizer and chat template of a GGUF file.

    Raises:
        ModelFileError: its metadata is damaged, or of an unknown kind.
    """
    model = file.value("tokenizer.ggml.model", str)
    if model not in ("gpt2", "llama"):
        raise ModelFileError(
            f"{file.path}: the tokenizer {model!r} is not supported. Supported are gpt2 "
            "(byte-level BPE) and llama (SentencePiece's BPE)."
        )
    tokens = file.values("tokenizer.ggml.tokens", str)
    types = file.values("tokenizer.ggml.token_type", int)
    if len(types) != len(tokens) or not set(types) <= set(_TYPES):
        raise ModelFileError(f"{file.path}: tokenizer.ggml.token_type is damaged.")

    def of_kinds(*kinds: int) -> dict[str, int]:
        return {tokens[number]: number for number, kind in enumerate(types) if kind in kinds}

    control = of_kinds(_UNKNOWN, _CONTROL)
    added = control | of_kinds(_USER_DEFINED)
    vocab = of_kinds(_NORMAL, _BYTE)
    named = _named(file, tokens)
    ends = {control[name] for name in _END_NAMES if name in control}
    ends |= {named[name] for name in ("eos", "eot", "eom") if name in named}
    pieces = _bytes_bpe(file, vocab) if model == "gpt2" else _sentence_pieces(file, vocab)
    texts = {f"{name}_token": tokens[number] for name, number in named.items()}
    template = ChatTemplate(_template(file, added, texts), texts, str(file.path))
    return Tokenizer(
        Vocabulary(pieces, added, frozenset(control.values()), frozenset(ends)), template
    )


def _bytes_bpe(file: GgufFile, vocab: dict[str, int]) -> tokenizers.Tokenizer:
    name = file.value("tokenizer.ggml.pre", str, "default")
    if name not in _PRE_TOKENIZERS:
        raise ModelFileError(
            f"{file.path}: the pre-tokenizer {name!r} is not supported. Supported are "
            f"{', '.join(_PRE_TOKENIZERS)}."
        )
    merges = [merge.partition(" ") for merge in file.values("tokenizer.ggml.merges", str)]
    pairs = [(first, second) for first, _, second in merges]
    pieces = _bpe(file, vocab, pairs, ignore_merges=name in _KEEP_WORDS)
    if name in _COMPOSE:
        pieces.normalizer = normalizers.NFC()
    steps = _PRE_TOKENIZERS[name]
    pieces.pre_tokenizer = steps[0] if len(steps) == 1 else pre_tokenizers.Sequence(steps)
    pieces.decoder = decoders.ByteLevel()
    return pieces


def _sentence_pieces(file: GgufFile, vocab: dict[str, int]) -> tokenizers.Tokenizer:
    """Make a BPE of the pieces' scores: the merge into the piece of the highest score comes first.

    SentencePiece joins whichever neighbours give the piece of the highest score.
    """
    scores = file.values("tokenizer.ggml.scores", float)
    if any(number >= len(scores) for number in vocab.values()):
        raise ModelFileError(f"{file.path}: tokenizer.ggml.scores is damaged.")
    ranked = sorted(vocab, key=lambda piece: (-scores[vocab[piece]], vocab[piece]))
    merges = [
        (piece[:cut], piece[cut:])
        for piece in ranked
        for cut in range(len(piece) - 1, 0, -1)
        if piece[:cut] in vocab and piece[cut:] in vocab
    ]
    pieces = _bpe(file, vocab, merges, byte_fallback=True, fuse_unk=True)
    begins_with_space = file.value("tokenizer.ggml.add_space_prefix", bool, True)
    space = normalizers.Replace(" ", SPACE)
    prefix = [normalizers.Prepend(SPACE)] if begins_with_space else []
    pieces.normalizer = normalizers.Sequence([*prefix, space])
    strip = [decoders.Strip(" ", 1, 0)] if begins_with_space else []
    pieces.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    )
    return pieces


def _bpe(
    file: GgufFile, vocab: dict[str, int], merges: Sequence[tuple[str, str]], **options: bool
) -> tokenizers.Tokenizer:
    try:
        return tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=merges, **options))
    except Exception as error:  # the library raises no narrower class
        raise ModelFileError(f"{file.path}: the tokenizer is damaged ({error}).") from error


def _named(file: GgufFile, tokens: Sequence[str]) -> dict[str, int]:
    """Return the ids of the special tokens that the file names."""
    found = {}
    for name, key in _NAMED.items():
        if file.has(f"tokenizer.ggml.{key}_token_id"):
            number = file.value(f"tokenizer.ggml.{key}_token_id", int)
            if not 0 <= number < len(tokens):
                raise ModelFileError(f"{file.path}: tokenizer.ggml.{key}_token_id is damaged.")
            found[name] = number
    return found


def _template(file: GgufFile, added: Mapping[str, int], texts: Mapping[str, str]) -> str:
    """Return the source of the chat template, which begins with the BOS token if texts do."""
    if file.has("tokenizer.chat_template"):
        source = file.value("tokenizer.chat_template", str)
    elif added.keys() >= {"<|im_start|>", "<|im_end|>"}:
        source = _CHATML
    else:
        raise ModelFileError(
            f"{file.path}: has no chat template. A model made for chat (often called Instruct) has "
            "one."
        )
    is_usual = (
        file.value("tokenizer.ggml.model", str) == "llama"
        or file.value("tokenizer.ggml.pre", str, "default") in _LLAMA3_NAMES
    )
    bos = texts.get("bos_token")
    if bos is None or not file.value("tokenizer.ggml.add_bos_token", bool, is_usual):
        return source
    return source if "bos_token" in source or bos in source else "{{ bos_token }}" + source
