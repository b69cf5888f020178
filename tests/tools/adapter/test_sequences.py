import numpy as np
import pytest

from hga_chat.documents import Document, LoadedDocuments, Section, lay_out
from hga_engine.tokenizer.load import load_tokenizer
from tools.adapter import schedule
from tools.adapter.data import Data, Text, read, write
from tools.adapter.sequences import Maker

pytestmark = pytest.mark.weights

LINES = [f"Line {n} tells of the weather on day {n}, which was fair." for n in range(900)]
TEXTS = tuple(
    Text(f"{kind}/{n}.txt", kind, kind, "MIT", "\n".join(LINES[n::7]) + "\n" * (n % 2), False)
    for kind in ("code", "manual", "prose")
    for n in range(7)
)
CHATS = (("Who are you?", "I am an assistant."),)


@pytest.fixture(scope="module")
def maker(embedded_model):
    return Maker(Data(TEXTS, CHATS), load_tokenizer(embedded_model))


def split(maker, sequence):
    """Return the text before the turns, and the turns as (asked, answered)."""
    tokenizer = maker.tokenizer
    ids = sequence.token_ids.tolist()
    answered = np.flatnonzero(sequence.answer_weights)
    runs = np.split(answered, np.flatnonzero(np.diff(answered) > 1) + 1)
    turns, done = [], int(np.flatnonzero(sequence.text_weights)[-1]) + 1
    for run in runs:
        turns.append((ids[done : run[0]], ids[run[0] : run[-1] + 1]))
        done = run[-1] + 1
    return tokenizer.decode(ids[: int(np.flatnonzero(sequence.text_weights)[-1]) + 1]), turns


@pytest.mark.parametrize("seed", range(12))
def test_turns_look_like_those_of_a_conversation_about_documents(maker, seed):
    tokenizer = maker.tokenizer
    sequence = maker.long(4096, seed)
    assert sequence.token_ids.shape == (4096,)
    text, turns = split(maker, sequence)
    assert len(turns) > 3
    end = tokenizer.to_next_question()[0]
    has_opening = sequence.token_ids[: len(tokenizer.opening(None))].tolist() == tokenizer.opening(
        None
    )
    assert has_opening == ("File: " in text)
    for number, (asked, answered) in enumerate(turns):
        assert answered[-1] == end
        assert end not in answered[:-1]
        assert asked[-len(tokenizer.to_answer()) :] == tokenizer.to_answer()
        if number:
            # The token that ends an answer is the first of what introduces the next question.
            opening = tokenizer.to_next_question()
            assert [end, *asked][: len(opening)] == opening


@pytest.mark.parametrize("seed", range(12))
def test_answers_occur_in_the_text(maker, seed):
    text, turns = split(maker, maker.long(8192, seed))
    decode = maker.tokenizer.decode
    for asked, answered in turns:
        answer = decode(answered)
        for number in (word.strip(".,:;") for word in answer.split()):
            if number.isdigit():
                assert number in text, (decode(asked), answer)


def test_documents_are_laid_out_as_in_the_product(maker):
    for text in (TEXTS[0], TEXTS[1]):
        section = Section(text.path, "", text.text, 1, 9, None)
        document = Document(text.path, "text", (section,))
        expected = lay_out(LoadedDocuments((document,), ()), maker.tokenizer).token_ids
        assert maker.document(text, text.text, is_bare=False) == expected


def test_short_windows_hold_texts_and_conversations(maker):
    kinds = set()
    for seed in range(20):
        ids, weights = maker.short(256, seed)
        assert ids.shape == weights.shape == (256,)
        count = int((weights > 0).sum()) + 1
        assert len(set(weights[1:count])) == 1
        if is_chat := weights[1] > 1:
            assert CHATS[0][1] in maker.tokenizer.decode(ids[:count].tolist())
        kinds.add(is_chat)
    # A token of a conversation counts more, as there are fewer of them.
    assert kinds == {True, False}


def test_the_same_seed_gives_the_same_sequence(maker):
    one, other, third = (maker.long(2048, seed).token_ids for seed in (3, 3, 4))
    assert (one == other).all()
    assert (one != third).any()


def test_data_survives_writing_and_reading(tmp_path):
    data = Data(TEXTS[:2], CHATS)
    write(tmp_path / "texts.xz", data)
    assert read(tmp_path / "texts.xz") == data


def test_the_schedule_ends_with_a_low_rate_and_long_sequences():
    rates = [schedule.rate(share / 100) for share in range(101)]
    assert max(rates) == rates[3] == 1
    assert rates[3:] == sorted(rates[3:], reverse=True)
    assert rates[100] < 0.03
    assert {schedule.length(0.05, step) for step in range(99)} <= {4_096, 8_192}
    late = [schedule.length(0.9, step) for step in range(99)]
    assert late.count(65_536) > 50
