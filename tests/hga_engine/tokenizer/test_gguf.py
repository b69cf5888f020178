"""Tokenizers of GGUF files, against byte-level and SentencePiece BPE written plainly.

The regexes are those of llama.cpp's ``src/llama-vocab.cpp``, which quotes the models' own.
"""

import json
import unicodedata
from itertools import pairwise
from pathlib import Path

import gguf
import pytest
import regex
import tokenizers
from tokenizers import models, pre_tokenizers, trainers
from transformers.convert_slow_tokenizer import generate_merges

from hga_engine.errors import ModelFileError
from hga_engine.model.files import ModelFiles
from hga_engine.tokenizer.byte_level import BYTE_OF
from hga_engine.tokenizer.load import load_tokenizer
from tests.hga_engine.tokenizer.test_token_counts import PROSE

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
CODE = Path(json.__file__).with_name("decoder.py").read_text("utf-8")
TEXTS = [*PROSE.values(), *CODE.split("\n\n")[:20], "HelloWORLD fooBar ÉCOLE/\n\n//x", "", " "]
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
REGEXES = {
    "default": [r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", r"[0-9][0-9][0-9]"],
    "gpt-2": [GPT2],
    "smollm": [r"\p{N}", GPT2],
    "starcoder": [r"\p{N}", GPT2],
    "qwen2": [LLAMA3.replace("{1,3}", "")],
    "llama-bpe": [LLAMA3],
    "llama3": [LLAMA3],
    "deepseek-coder": [
        "[\r\n]",
        r"\s?\p{L}+",
        r"\s?\p{P}+",
        "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+",
        r"\p{N}",
    ],
    "tekken": [
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
        r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
        r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    ],
}
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def trained():
    """Train merges on the texts: tokens in the order of their ids, and merges in theirs."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    # Merges across words, so that pre-tokenizers show.
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=1500, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(TEXTS * 3, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    return list(model["vocab"]), [tuple(pair) for pair in model["merges"]]


TOKENS, MERGES = trained()


def write(path, tokens, types, *calls, template=CHATML, model="gpt2"):
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model(model)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    if template is not None:
        writer.add_chat_template(template)
    for name, *values in calls:
        getattr(writer, name)(*values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def load(path, cache_dir=None):
    load_tokenizer.cache_clear()
    return load_tokenizer(ModelFiles("test", None, path, cache_dir=cache_dir))


def write_bytes_bpe(path, pre, extra=(), calls=(), **options):
    """Write the trained tokens, then ``extra`` (token, type), as byte-level BPE."""
    tokens = [*TOKENS, *(token for token, _ in extra)]
    types = [NORMAL] * len(TOKENS) + [kind for _, kind in extra]
    merges = ("add_token_merges", [" ".join(pair) for pair in MERGES])
    pres = [("add_tokenizer_pre", pre)] if pre else []
    return write(path, tokens, types, merges, *pres, *calls, **options)


CHAT = [("<|im_start|>", CONTROL), ("<|im_end|>", CONTROL), ("<|endoftext|>", CONTROL)]


def split(text, patterns):
    """Apply one regex after the other; what lies between two matches is a piece as well."""
    pieces = [text]
    for pattern in patterns:
        parts = (regex.split(f"({pattern})", piece) for piece in pieces)
        pieces = [part for split_ in parts for part in split_ if part]
    return pieces


def plain_bytes_bpe(text, pre):
    """Byte-level BPE by its definition: the pair that was merged first in training goes first."""
    if pre == "qwen2":  # as its tokenizer.json says
        text = unicodedata.normalize("NFC", text)
    characters = {byte: character for character, byte in BYTE_OF.items()}
    ranks = {pair: rank for rank, pair in enumerate(MERGES)}
    ids = []
    for piece in split(text, REGEXES[pre]):
        parts = [characters[byte] for byte in piece.encode()]
        if pre in ("llama-bpe", "llama3", "tekken") and "".join(parts) in TOKENS:
            parts = ["".join(parts)]
        while True:
            found = [(ranks.get(pair, 1 << 30), n) for n, pair in enumerate(pairwise(parts))]
            rank, place = min(found, default=(1 << 30, 0))
            if rank == 1 << 30:
                break
            parts[place : place + 2] = ["".join(parts[place : place + 2])]
        ids += [TOKENS.index(part) for part in parts]
    return ids


@pytest.mark.parametrize("pre", REGEXES)
def test_bytes_bpe_is_its_definition(pre, tmp_path):
    path = write_bytes_bpe(tmp_path / "a.gguf", pre, CHAT)
    for tokenizer in (load(path, tmp_path / "cache"), load(path, tmp_path / "cache")):
        for text in TEXTS:
            ids = tokenizer.encode(text)
            assert ids == plain_bytes_bpe(text, pre)
            expected = unicodedata.normalize("NFC", text) if pre == "qwen2" else text
            assert tokenizer.decode(ids) == expected
        assert sum(tokenizer.count(TEXTS)) == sum(len(tokenizer.encode(text)) for text in TEXTS)


def test_pre_tokenizers_differ_on_these_texts():
    found = {pre: [plain_bytes_bpe(text, pre) for text in TEXTS] for pre in REGEXES}
    different = {json.dumps(ids) for ids in found.values()}
    assert len(different) == len({json.dumps([r, p in ("qwen2",)]) for p, r in REGEXES.items()})


def test_kinds_of_tokens(tmp_path):
    extra = [*CHAT, ("<think>", USER_DEFINED), ("[PAD1]", UNUSED), ("<unk>", UNKNOWN)]
    tokenizer = load(write_bytes_bpe(tmp_path / "a.gguf", "qwen2", extra))
    start = len(TOKENS)
    assert tokenizer.decode([start, start + 3, start + 4, start + 5]) == "<think>"
    text = "<|im_start|><think>[PAD1]<unk>"
    assert max(tokenizer.encode(text)) < start
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_every_end_that_a_file_names_ends_an_answer(tmp_path):
    extra = [*CHAT, ("<stop>", CONTROL), ("<more>", CONTROL), ("<|eot_id|>", CONTROL)]
    start = len(TOKENS)
    calls = [("add_eos_token_id", start + 3), ("add_eot_token_id", start + 4)]
    tokenizer = load(write_bytes_bpe(tmp_path / "a.gguf", "qwen2", extra, calls))
    assert tokenizer.end_tokens == {start + n for n in (1, 2, 3, 4, 5)}


@pytest.mark.parametrize(
    ("pre", "said", "template", "begins"),
    [
        ("qwen2", None, CHATML, False),
        ("qwen2", False, CHATML, False),
        ("qwen2", True, CHATML, True),
        ("llama-bpe", None, CHATML, True),
        ("llama-bpe", False, CHATML, False),
        ("llama-bpe", True, "{{ bos_token }}" + CHATML, True),
        ("llama-bpe", True, "<|endoftext|>" + CHATML, True),
    ],
)
def test_texts_begin_with_bos_once(pre, said, template, begins, tmp_path):
    calls = [("add_bos_token_id", len(TOKENS) + 2)]
    if said is not None:
        calls.append(("add_add_bos_token", said))
    path = write_bytes_bpe(tmp_path / "a.gguf", pre, CHAT, calls, template=template)
    opening = load(path).opening(None)
    assert opening.count(len(TOKENS) + 2) == (opening[0] == len(TOKENS) + 2) == begins


def test_chatml_is_the_template_of_a_model_with_its_tokens(tmp_path):
    path = write_bytes_bpe(tmp_path / "a.gguf", "qwen2", CHAT, template=None)
    tokenizer = load(path)
    text = "<|im_start|>user\n"
    assert tokenizer.opening(None) == [len(TOKENS), *tokenizer.encode("user\n")]
    assert tokenizer.template.around(["user"], answer_follows=True) == [
        text,
        "<|im_end|>\n<|im_start|>assistant\n",
    ]
    with pytest.raises(ModelFileError, match=r"b\.gguf: has no chat template\. .*Instruct"):
        load(write_bytes_bpe(tmp_path / "b.gguf", "qwen2", CHAT[2:], template=None))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"pre": "gpt-4o"}, "pre-tokenizer 'gpt-4o' .* qwen2, .*llama-bpe"),
        ({"model": "bert"}, "tokenizer 'bert' .* gpt2 .* llama"),
        ({"extra": [("<x>", 9)]}, "token_type is damaged"),
        ({"calls": [("add_eos_token_id", 99_999)]}, "eos_token_id is damaged"),
    ],
)
def test_what_is_not_supported_is_named(options, words, tmp_path):
    path = write_bytes_bpe(tmp_path / "a.gguf", **({"pre": "qwen2", "extra": CHAT} | options))
    with pytest.raises(ModelFileError, match=words):
        load(path)


def test_merges_of_unknown_tokens_are_damage(tmp_path):
    types = [NORMAL] * 256
    path = write(tmp_path / "a.gguf", TOKENS[:256], types, ("add_token_merges", ["no way"]))
    with pytest.raises(ModelFileError, match="the tokenizer is damaged"):
        load(path)


# SentencePiece

PIECES = [
    *(("<unk>", UNKNOWN), ("<s>", CONTROL), ("</s>", CONTROL)),
    *((f"<0x{byte:02X}>", BYTE) for byte in range(256)),
    *((piece, NORMAL) for piece in ("▁t", "he", "▁the", "in", "er", "▁a", "▁s", "▁in", "ing")),
    *((piece, NORMAL) for piece in ("▁th", "an", "the", "▁▁", "nd", "and", "▁and")),
    *((letter, NORMAL) for letter in "▁etaoinshrdlu.,é"),
]
SCORES = [0.0] * 259 + [-float(number) for number in range(len(PIECES) - 259)]
LLAMA2 = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message.role == 'user' %}[INST] {{ message.content }} [/INST]"
    "{% else %}{{ message.content }}</s>{% endif %}{% endfor %}"
)
WORDS = [
    "the rain and the sun in there",
    "  and  anders in the inn, then.",
    "thethe éternel 日本 \n\tx",
    "",
    "a",
]


def write_sentence_pieces(path, *calls, template=LLAMA2):
    tokens, types = zip(*PIECES, strict=True)
    named = [("add_bos_token_id", 1), ("add_eos_token_id", 2), ("add_unk_token_id", 0)]
    scores = ("add_token_scores", SCORES)
    return write(path, tokens, types, scores, *named, *calls, template=template, model="llama")


def plain_sentence_pieces(text, prefix):
    """SentencePiece's BPE by its definition: the neighbours with the best joint score go first."""
    numbers = {piece: number for number, (piece, kind) in enumerate(PIECES) if kind == NORMAL}
    parts = list((" " * (prefix and text != "") + text).replace(" ", "▁"))
    while True:
        joint = [(a + b, n) for n, (a, b) in enumerate(pairwise(parts))]
        known = [(-SCORES[numbers[piece]], n) for piece, n in joint if piece in numbers]
        if not known:
            break
        _, place = min(known)
        parts[place : place + 2] = ["".join(parts[place : place + 2])]
    ids = []
    for part in parts:
        ids += [numbers[part]] if part in numbers else [3 + byte for byte in part.encode()]
    return ids


@pytest.mark.parametrize("prefix", [True, False])
def test_sentence_pieces_join_by_score(prefix, tmp_path):
    calls = [] if prefix else [("add_add_space_prefix", False)]
    path = write_sentence_pieces(tmp_path / "a.gguf", *calls)
    for tokenizer in (load(path, tmp_path / "cache"), load(path, tmp_path / "cache")):
        for text in WORDS:
            ids = tokenizer.encode(text)
            assert ids == plain_sentence_pieces(text, prefix)
            assert tokenizer.decode(ids) == text
        assert tokenizer.end_tokens == {2}
        assert tokenizer.opening(None)[0] == 1


def test_merges_are_those_of_transformers(tmp_path):
    tokenizer = load(write_sentence_pieces(tmp_path / "a.gguf"))
    vocab = {piece: n for n, (piece, kind) in enumerate(PIECES) if kind in (NORMAL, BYTE)}
    scores = {piece: SCORES[number] for piece, number in vocab.items()}
    found = json.loads(tokenizer.vocabulary.pieces.to_str())["model"]["merges"]
    assert [tuple(pair) for pair in found] == generate_merges(vocab, scores)


def test_scores_are_needed_for_every_piece(tmp_path):
    tokens, types = zip(*PIECES, strict=True)
    path = write(
        tmp_path / "a.gguf",
        tokens,
        types,
        ("add_token_scores", SCORES[:-1]),
        template=LLAMA2,
        model="llama",
    )
    with pytest.raises(ModelFileError, match="scores is damaged"):
        load(path)


@pytest.mark.parametrize("before", ["[INST] ", "the "])
@pytest.mark.parametrize("between", [" [/INST]", "\n[/INST]"])
def test_a_chat_is_encoded_as_its_whole_text(before, between, tmp_path):
    user = f"{before}{{{{ message.content }}}}{between}"
    template = (
        "{{ bos_token }}{% for message in messages %}{% if message.role == 'user' %}" + user
    ) + "{% else %}{{ message.content }}</s>{% endif %}{% endfor %}"
    tokenizer = load(write_sentence_pieces(tmp_path / "a.gguf", template=template))
    ids = [*tokenizer.opening(None), *tokenizer.encode("the rain"), *tokenizer.to_answer()]
    whole = f"{before}the rain{between}"
    assert ids == [1, *plain_sentence_pieces(whole, prefix=True)]
    following = tokenizer.to_next_question() + tokenizer.encode("and then")
    assert following == [2, *plain_sentence_pieces(f"{before}and then", prefix=True)]
