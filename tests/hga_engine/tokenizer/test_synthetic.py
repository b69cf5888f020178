"""The synthetic tokenizer encodes any text and decodes its other tokens to words."""

import pytest

from hga_engine.tokenizer.synthetic import synthetic_tokenizer

VOCAB = 600


@pytest.fixture(scope="module")
def tokenizer():
    return synthetic_tokenizer(VOCAB)


def test_decoding_restores_the_text(tokenizer):
    text = "Zwölf <|im_end|> Boxkämpfer\n\t日本"
    ids = tokenizer.encode(text)
    assert len(ids) == len(text.encode())
    assert set(ids) <= set(range(256))
    assert tokenizer.decode(ids) == text
    assert tokenizer.count([text, ""]) == [len(ids), 0]


def test_other_tokens_decode_to_words_and_marks_to_nothing(tokenizer):
    assert tokenizer.decode([256, 597, 598, 599]) == " w256 w597"
    assert (tokenizer.vocab_size, tokenizer.end_tokens) == (VOCAB, {599})


def test_chat_tokens(tokenizer):
    opening = [598, *tokenizer.encode("user\n")]
    assert tokenizer.opening(None) == opening
    assert tokenizer.to_answer() == [599, 10, 598, *tokenizer.encode("assistant\n")]
    assert tokenizer.to_next_question() == [599, 10, *opening]
