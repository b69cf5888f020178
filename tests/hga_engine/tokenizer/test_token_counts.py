"""Counts by tiktoken against the tokenizer's own, on real and on generated text."""

import json
import sysconfig
import unicodedata
from pathlib import Path

import pytest
import tokenizers
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from hga_engine.model.files import ModelFiles
from hga_engine.tokenizer.load import load_tokenizer
from hga_engine.tokenizer.token_counts import _BETWEEN, fast_counter

QWEN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
BYTE_LEVEL = {
    "type": "ByteLevel",
    "add_prefix_space": False,
    "trim_offsets": True,
    "use_regex": True,
}
PROSE = {
    "German": "Der Wärter öffnete die große Tür; 3 Öfen glühten »noch«.",
    "French": "L’été, c’était où ? Là-bas, près de l’œuvre – 25 % moins cher.",
    "Greek": "Το κλειδί είναι κάτω από την πέτρα, δίπλα στο πηγάδι.",
    "Russian": "Ключ лежит под камнем; 17-го числа его ещё не было.",
    "Turkish": "İstanbul'da ışık söndü, ağaçlar sessizdi.",
    "Arabic": "المفتاح تحت الحجر، و١٢٣ خطوةً إلى البئر؟",
    "Hebrew": "המפתח נמצא מתחת לאבן, ליד הבאר.",
    "Hindi": "कुंजी पत्थर के नीचे है, क्षितिज के पास १२ कदम।",
    "Thai": "กุญแจอยู่ใต้ก้อนหิน ห่างจากบ่อน้ำ ๑๒ ก้าว",
    "Chinese": "钥匙在石头下面，离水井十二步。《山海经》第3卷。",
    "Japanese": "鍵は石の下にあります。「井戸」から12歩、ｶﾀｶﾅも。",
    "Korean": "열쇠는 돌 밑에 있어요. 우물에서 12걸음.",
    "Vietnamese": "Chìa khóa ở dưới hòn đá, cách giếng mười hai bước.",
    "emoji": "👩‍🚀 went 🇩🇪→🇯🇵 👍🏽 ok ❤️‍🔥 №5 ½ ² Ⅳ ① ﷺ",
    "blanks": "a  b   c\t\td \t e\u00a0f\u2003g\n\n\n  h\r\n\r\n   7  8\x0b\x0c\x85\u2028i   ",
    "digits": "3.14159 1,000,000 0x1F600 2024-11-24T22:15:00Z v1.2.3 x2y 12th ٣٤ 𝟙𝟚",
    "contractions": "I'm, you're; it'S we'LL 'tis 's''t ain't 'dx o'clock '9 'ſ",
    "signs": "!!! ??? ... ---- ==== #{}[]()<> && || ~~ `` '' \"\" \\ /// @@ <|im_end|>",
    "combining": "e\u0301 n\u0303 \u1100\u1161\u11a8 \u212b \ufb01 a\u0323\u0302 \u0958",
}


def trained(pre_tokenizer, normalizer=None):
    """Train a byte-level BPE, as the models have, on the prose above and some code."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=2000, initial_alphabet=alphabet, show_progress=False)
    code = Path(json.__file__).with_name("decoder.py").read_text("utf-8")
    tokenizer.train_from_iterator([*PROSE.values(), *code.split("\n\n")] * 3, trainer)
    return tokenizer


KINDS = {
    "GPT-2": lambda: trained(pre_tokenizers.ByteLevel(add_prefix_space=False)),
    "SmolLM2": lambda: trained(
        pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
    ),
    "Qwen": lambda: trained(
        pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(tokenizers.Regex(QWEN), "isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        ),
        normalizers.NFC(),
    ),
}


@pytest.fixture(scope="module")
def kinds():
    made = {name: make() for name, make in KINDS.items()}
    return {name: (tokenizer, fast_counter(tokenizer)) for name, tokenizer in made.items()}


@pytest.fixture(scope="module")
def embedded(embedded_model):
    return load_tokenizer(embedded_model)


def code():
    """Return a megabyte of Python's own sources."""
    folder = Path(sysconfig.get_path("stdlib"))
    return [p.read_text("utf-8") for p in sorted((folder / "asyncio").glob("*.py"))]


@pytest.mark.parametrize("text", PROSE.values(), ids=PROSE)
@pytest.mark.parametrize("kind", KINDS)
def test_prose_in_many_scripts(kind, text, kinds):
    tokenizer, counter = kinds[kind]
    for part in (text, text * 3, f" {text}", f"{text}\n", text.replace(" ", "\n"), text[::-1]):
        assert counter.count([part])[0] == len(tokenizer.encode(part).ids)


@pytest.mark.parametrize("kind", KINDS)
def test_code(kind, kinds):
    tokenizer, counter = kinds[kind]
    for text in code()[:12]:
        assert counter.count([text])[0] == len(tokenizer.encode(text).ids)


CHARACTERS = st.characters(exclude_categories=("Cs", "Cn"))
SPECIMENS = st.sampled_from([*PROSE.values(), " ", "  ", "\n", "\r\n", "'", "'s", "7", "12", "\t"])
TEXTS = st.lists(st.one_of(SPECIMENS, st.text(CHARACTERS, max_size=9)), max_size=9).map("".join)


@settings(max_examples=250, deadline=None)
@given(text=TEXTS)
@example(text=" \n7")
@example(text="x\x85 \x1c9")
@pytest.mark.parametrize("kind", KINDS)
def test_any_text(kind, kinds, text):
    assume(_BETWEEN not in text)
    tokenizer, counter = kinds[kind]
    if kind == "Qwen":  # Python and tokenizers compose by different versions of Unicode
        text = unicodedata.normalize("NFC", text)
    assert counter.count([text])[0] == len(tokenizer.encode(text).ids)


@pytest.mark.weights
@settings(max_examples=300, deadline=None)
@given(text=TEXTS)
def test_the_embedded_tokenizer_on_any_text(embedded, text):
    assert embedded.count([text]) == [len(embedded.encode(text))]


@pytest.mark.weights
def test_the_embedded_tokenizer_on_code_and_prose(embedded):
    texts = [*code(), *PROSE.values(), "\n\n".join(PROSE.values()), ""]
    assert embedded.count(texts) == [len(embedded.encode(text)) for text in texts]
    assert None not in fast_counter(embedded.vocabulary.pieces).count(texts)


@pytest.mark.weights
def test_characters_without_tokens_in_the_embedded_tokenizer(embedded):
    """They vanish and their neighbours may join, so only the tokenizer can count such texts."""
    for text in ("a\x04b", "\x06\x13", "in\x14g \U000f0000!", "\x16"):
        texts = ["fine", text, ""]
        assert fast_counter(embedded.vocabulary.pieces).count(texts) == [
            len(embedded.encode("fine")),
            None,
            0,
        ]
        assert embedded.count(texts) == [len(embedded.encode(text)) for text in texts]


@pytest.mark.parametrize("kind", KINDS)
def test_many_texts_are_counted_separately(kind, kinds):
    tokenizer, counter = kinds[kind]
    texts = ["", "a", " ", "  ", "b\n", "", "\n7", "'s", *PROSE.values(), "x" + _BETWEEN, _BETWEEN]
    expected = [len(tokenizer.encode(text).ids) for text in texts[:-2]]
    assert counter.count(texts) == [*expected, None, None]
    assert counter.count([]) == []


@pytest.mark.parametrize("kind", KINDS)
def test_very_long_words_and_blanks(kind, kinds):
    tokenizer, counter = kinds[kind]
    for text in (
        "a" * 99_000,
        " " * 99_000 + "x",
        "\n" * 99_000 + "x",
        "ab" * 40_000,
        "漢" * 9_000,
    ):
        assert counter.count([text])[0] == len(tokenizer.encode(text).ids)
    assert counter.count([" " * 2_000_000 + "x", "a b"])[0] is None


def test_tokens_that_no_text_encodes_to_are_never_counted():
    """'bc' is joined first, so 'ab' and 'c' are never joined to 'abc'."""
    vocab = {**{chr(n): n for n in range(0x21, 0x7F)}, "Ġ": 200, "bc": 201, "ab": 202, "abc": 203}
    bpe = models.BPE(vocab, [("b", "c"), ("a", "b"), ("ab", "c")])
    tokenizer = tokenizers.Tokenizer(bpe)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    counter = fast_counter(tokenizer)
    for text in ("abc", "abcabc ab abc", "ab", "xabc"):
        assert counter.count([text])[0] == len(tokenizer.encode(text).ids)


@pytest.mark.parametrize(
    "change",
    [
        {"normalizer": {"type": "Lowercase"}},
        {"pre_tokenizer": None},
        {"pre_tokenizer": {"type": "Whitespace"}},
        {"pre_tokenizer": BYTE_LEVEL | {"add_prefix_space": True}},
        {"pre_tokenizer": BYTE_LEVEL | {"use_regex": False}},
    ],
)
def test_unknown_tokenizers_have_no_fast_counter(change):
    definition = json.loads(KINDS["GPT-2"]().to_str()) | change
    assert fast_counter(tokenizers.Tokenizer.from_str(json.dumps(definition))) is None


def test_two_merges_to_one_token_have_no_fast_counter():
    vocab = {"a": 0, "b": 1, "c": 2, "ab": 3, "bc": 4, "abc": 5}
    merges = [("a", "b"), ("b", "c"), ("ab", "c"), ("a", "bc")]
    tokenizer = tokenizers.Tokenizer(models.BPE(vocab, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    assert fast_counter(tokenizer) is None


def test_counts_without_a_fast_counter(tmp_path):
    tokenizer = KINDS["GPT-2"]()
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "chat_template.jinja").write_text(
        "{% for m in messages %}{{ m.content }}{% endfor %}"
    )
    ours = load_tokenizer(ModelFiles("test", tmp_path, None))
    assert ours.count(["The Key", "", PROSE["Greek"]]) == [
        len(ours.encode(text)) for text in ("The Key", "", PROSE["Greek"])
    ]
