import threading
from dataclasses import replace

import pytest

from hga_chat.conversation.answer import Answer, restored_answer, saved_turn
from hga_chat.conversation.conversation import Conversation
from hga_chat.conversation.thought import Thought
from hga_chat.documents import Document, LoadedDocuments, Section, lay_out
from hga_chat.errors import SessionFullError
from hga_engine.config import SamplingParams
from hga_engine.errors import ContextFullError
from hga_engine.events import PrefillProgress, TextDelta
from tests.support.scripted import ScriptedAnswer, ScriptedEngine
from tests.support.scripted_conversation import ScriptedConversation

GREEDY = SamplingParams()


def ask(conversation, question, cancel=None):
    """Ask a question; return the answer and the events before it."""
    *events, answer = conversation.ask(question, GREEDY, cancel)
    assert isinstance(answer, Answer)
    return answer, events


class Layout:
    """Tokens without provenance: these tests check the session, not the sources."""

    documents = ()

    def __init__(self, token_ids):
        self.token_ids = token_ids

    def locate(self, start, end):
        raise AssertionError("no attention mass was scripted")


@pytest.fixture
def engine():
    return ScriptedEngine(["Blue.", "Because of the sky."])


@pytest.fixture
def conversation(engine):
    return Conversation(engine, Layout(engine.tokenizer.encode("The sea is blue.")))


def test_session_holds_opening_documents_question_and_answer_in_this_order(conversation, engine):
    list(conversation.prefill())
    ask(conversation, "Which colour?")
    ask(conversation, "Why?")
    encode = engine.tokenizer.encode
    user, assistant, end = 0, 1, 2
    expected = [user, *encode("The sea is blue."), *encode("\n\nWhich colour?"), end, assistant]
    expected += [*encode("Blue."), end, user, *encode("Why?"), end, assistant]
    expected += encode("Because of the sky.")
    assert engine.session == expected
    assert conversation.document_start == 1


def test_events_are_progress_then_text_then_one_answer(conversation):
    answer, events = ask(conversation, "Which colour?")
    kinds = [type(event) for event in events]
    texts = kinds.count(TextDelta)
    assert texts == 2
    assert kinds == [PrefillProgress] * (len(kinds) - texts) + [TextDelta] * texts
    assert (answer.question, answer.text) == ("Which colour?", "Blue.")
    assert answer.finished.completion_tokens == 2
    assert [saved_turn(turn) for turn in conversation.turns] == [saved_turn(answer)]


def test_documents_are_prefilled_once(conversation, engine):
    list(conversation.prefill())
    tokens = engine.num_tokens
    assert list(conversation.prefill()) == []
    assert engine.num_tokens == tokens


def test_without_documents_the_question_opens_the_session(engine):
    conversation = Conversation(engine, None)
    ask(conversation, "Hello?")
    assert engine.session[:4] == [0, *engine.tokenizer.encode("Hello?"), 2]


def test_a_cancelled_prefill_can_be_repeated(engine, conversation):
    cancel = threading.Event()
    for _ in conversation.prefill(cancel):
        cancel.set()
    assert not conversation.is_prefilled
    answer, _ = ask(conversation, "Which colour?", cancel)
    assert (answer.text, answer.finished.reason) == ("", "cancelled")
    assert conversation.turns == []
    assert ask(conversation, "Which colour?")[0].text == "Blue."


def test_a_question_cancelled_during_its_prefill_leaves_no_trace(engine, conversation):
    list(conversation.prefill())
    before = list(engine.session)
    cancel = threading.Event()
    events = []
    for event in conversation.ask("Which colour?", GREEDY, cancel):
        cancel.set()
        events.append(event)
    assert isinstance(events[-1], Answer)
    assert events[-1].finished.reason == "cancelled"
    assert engine.session == before
    assert conversation.turns == []
    ask(conversation, "Which colour?")
    assert engine.prompts[-1][:1] == engine.tokenizer.encode("\n")  # again a first question


def test_a_cancelled_answer_keeps_what_was_decoded(engine, conversation):
    list(conversation.prefill())
    cancel = threading.Event()
    for event in conversation.ask("Which colour?", GREEDY, cancel):
        if isinstance(event, TextDelta):
            cancel.set()
    assert (event.text, event.finished.reason) == ("Blue", "cancelled")
    assert [saved_turn(turn) for turn in conversation.turns] == [saved_turn(event)]
    assert engine.session[-1:] == engine.tokenizer.encode("Blue")
    ask(conversation, "Why?")
    assert engine.prompts[-1][:2] == [2, 0]


def test_full_context_leaves_the_session_usable():
    engine = ScriptedEngine(["Blue."], context=40)
    conversation = Conversation(engine, Layout(engine.tokenizer.encode("The sea is blue.")))
    list(conversation.prefill())
    before = list(engine.session)
    with pytest.raises(ContextFullError):
        ask(conversation, "word " * 40)
    assert engine.session == before
    assert ask(conversation, "Which colour?")[0].text == "Blue."


def test_a_failed_answer_removes_its_question():
    engine = ScriptedEngine([ScriptedAnswer("x", error=OSError("disk")), "Blue."])
    conversation = Conversation(engine, None)
    list(conversation.prefill())
    before = list(engine.session)
    with pytest.raises(OSError, match="disk"):
        ask(conversation, "Which colour?")
    assert engine.session == before
    assert ask(conversation, "Which colour?")[0].text == "Blue."


def test_a_full_session_says_so_ahead_and_names_ways_out():
    engine = ScriptedEngine(["Blue.", "Red."], context=1500)
    conversation = Conversation(engine, Layout(engine.tokenizer.encode("The sea is blue. " * 8)))
    list(conversation.prefill())
    assert conversation.room_note is None
    ask(conversation, "Which colour?")
    left = 1500 - engine.num_tokens
    assert f"{left:,} tokens are left in this session. /clear" in str(conversation.room_note)
    turns = engine.num_tokens - conversation.document_end
    with pytest.raises(SessionFullError, match=f"The turns take {turns} of them"):
        ask(conversation, "word " * 1600)
    assert ask(conversation, "Which colour?")[0].text == "Red."


@pytest.fixture
def thinking():
    """A conversation with a model that thinks if it is asked to."""
    engine = ScriptedEngine(["<think>The sea? Blue.</think>\n\nBlue.", "<think> is a tag."])
    engine.tokenizer.can_think = True
    conversation = Conversation(engine, Layout(engine.tokenizer.encode("The sea is blue.")))
    list(conversation.prefill())
    return conversation


def test_a_thought_is_told_from_the_answer(thinking):
    thinking.thinks = True
    answer, events = ask(thinking, "Which colour?")
    assert (answer.thought, answer.text) == ("The sea? Blue.", "Blue.")
    assert "".join(e.text for e in events if isinstance(e, Thought)) == "The sea? Blue."
    tokens = [event for event in events if isinstance(event, TextDelta)]
    assert "".join(token.text for token in tokens) == "Blue."
    assert answer.finished.completion_tokens == len(tokens)
    (prompt,) = thinking.engine.prompts
    assert prompt == [
        *thinking.engine.tokenizer.encode("\n\nWhich colour?"),
        *thinking.engine.tokenizer.to_answer(thinking=True),
    ]
    assert restored_answer(saved_turn(answer)).thought == answer.thought


def test_without_thinking_tags_are_text(thinking):
    thinking.engine._answers.pop(0)
    answer, events = ask(thinking, "Which colour?")
    assert (answer.thought, answer.text) == ("", "<think> is a tag.")
    assert not any(isinstance(event, Thought) for event in events)
    assert thinking.engine.prompts[0][-2:] == thinking.engine.tokenizer.to_answer()


def in_parts(tokens, context=64, part=16):
    """An engine that prefills in parts, and a conversation about a text of so many tokens."""
    engine = ScriptedEngine(["Blue."], context=context)
    engine.config = replace(engine.config, part_tokens=part)
    return engine, Conversation(engine, Layout(list(range(3, 3 + tokens))))


def test_a_long_text_is_prefilled_in_parts_that_begin_at_fixed_positions():
    engine, conversation = in_parts(40)
    steps = list(conversation.prefill())
    # 41 tokens with the one that opens the session.
    assert engine.reads == [16, 16, 9]
    assert engine.session == [0, *range(3, 43)]
    fractions = [step.fraction for step in steps]
    assert fractions == sorted(fractions)
    assert (fractions[-1], {step.tokens for step in steps}) == (1.0, {41})


def test_a_cancelled_prefill_keeps_the_parts_that_are_done():
    engine, conversation = in_parts(40)
    cancel = threading.Event()
    for _ in conversation.prefill(cancel):
        if engine.num_tokens == 16:
            cancel.set()
    assert engine.session == [0, *range(3, 18)]
    assert conversation.pending_tokens == 41 - 16
    list(conversation.prefill())
    assert engine.reads == [16, 16, 16, 9]
    assert engine.session == [0, *range(3, 43)]


def test_a_text_beyond_the_context_is_refused_before_its_first_part():
    engine, conversation = in_parts(80)
    with pytest.raises(ContextFullError):
        list(conversation.prefill())
    assert engine.reads == []


def test_a_prefill_saves_now_and_then_what_it_has(monkeypatch, tmp_path):
    monkeypatch.setattr("hga_chat.conversation.conversation._SAVE_EVERY_S", -1.0)
    engine, conversation = in_parts(40)
    saved = conversation.saved = Saved(engine)
    list(conversation.prefill())
    assert saved.lengths == [16, 32]


class Saved:
    """A saved session that records how many tokens each save has."""

    def __init__(self, engine):
        self.engine = engine
        self.lengths = []

    def save(self, save_kv, documents, turns, dropped=()):
        self.lengths.append(self.engine.num_tokens)
        return []


@pytest.mark.parametrize(
    ("text", "depends", "lines"),
    [
        ("It lasts 43 minutes.", False, [43, 11]),  # stated: first, whatever hiding costs
        ("It lasts long enough.", False, []),
        ("It lasts long enough.", True, [11, 43]),
    ],
)
def test_sources_are_passages_that_state_the_answer_or_that_it_depends_on(text, depends, lines):
    document = Document(
        "plan.txt",
        "text",
        (
            Section(
                "plan.txt",
                "plan.txt",
                "".join(f"step {line} takes some\n" for line in range(80)),
                0,
                79,
                None,
            ),
        ),
    )
    layout = lay_out(LoadedDocuments((document,), ()), ScriptedEngine().tokenizer)
    bins = {}
    for line, mass in ((11, 0.5), (43, 0.3)):
        start = next(
            start
            for start in range(len(layout.token_ids))
            if layout.locate(start, start + 1)
            and layout.locate(start, start + 1)[0].start_line == line
        )
        bins[(start + 1) // 16] = mass
    answer = ScriptedAnswer(text, reads_of_tokens={1: bins}, depends=depends)
    conversation = Conversation(ScriptedEngine([answer]), layout)
    found, _ = ask(conversation, "How long?")
    assert len(found.sources) == len(lines)
    for one, line in zip(found.sources, lines, strict=True):
        assert one.start_line <= line <= one.end_line


# Documents that are ticked off, and questions about some of them


def left_out(script, conversation, path):
    """Groups of 2 tokens that hold nothing but a document."""
    (span,) = (s for s in script.layout.documents if s.document.path == path)
    start, end = (conversation.document_start + token for token in (span.start, span.end))
    return set(range(-(-max(start, 16) // 2), end // 2))


@pytest.fixture
def script():
    return ScriptedConversation(["One.", "Two.", "Three.", "Four."])


def test_a_question_leaves_out_what_is_ticked_off(script):
    conversation = script.make(lambda *_: None)
    ask(conversation, "Whole?")
    first = conversation.drop("sea.txt")
    assert first.startswith("Ticked off logs/sea.txt; questions leave it out until /add sea.txt.")
    assert "was read with it there" in first
    answer, _ = ask(conversation, "Less?")
    assert answer.scope.without == ("logs/sea.txt",)
    assert not answer.scope_note
    assert conversation.add("sea.txt") == "Ticked on logs/sea.txt; nothing needs reading again."
    assert "was read with it there" not in conversation.drop("book.pdf")
    conversation.add("book.pdf")
    ask(conversation, "Whole again?")
    whole, less, again = script.engine.left_out_of
    assert whole == again == []
    assert set(less) == left_out(script, conversation, "logs/sea.txt")
    assert script.engine.left_out == []
    assert script.engine.reads == [len(script.layout) + 1]


def test_a_question_that_names_documents_is_limited_to_them(script):
    conversation = script.make(lambda *_: None)
    conversation.drop("logs/book.pdf")
    answer, _ = ask(conversation, "What does @book.pdf say?")
    assert answer.scope_note == "Limited to logs/book.pdf."
    assert set(script.engine.left_out_of[0]) == left_out(script, conversation, "logs/sea.txt")
    answer, _ = ask(conversation, "And @boook.pdf?")
    assert answer.scope_note == "No document is called boook.pdf. Did you mean logs/book.pdf?"
    assert set(script.engine.left_out_of[1]) == left_out(script, conversation, "logs/book.pdf")


def test_sources_are_documents_that_the_question_could_attend_to(script):
    tokens = script.layout.documents[0].end + 1
    border = tokens // 16
    assert tokens % 16  # a trace bin with tokens of both documents
    script.engine._answers[0] = ScriptedAnswer("Calm.", {border: 3.0, border + 3: 1.0})
    conversation = script.make(lambda *_: None)
    answer, _ = ask(conversation, "What does @book.pdf say?")
    assert {source.path for source in answer.sources} == {"logs/book.pdf"}


def test_what_cannot_be_ticked_is_said(script, tmp_path):
    conversation = script.make(lambda *_: None)
    assert "No document is called see.txt. Did you mean logs/sea.txt?" in conversation.drop(
        "see.txt"
    )
    assert conversation.add("logs/sea.txt") == "logs/sea.txt: ticked on already."
    conversation.drop("logs")
    assert conversation.dropped == ("logs/sea.txt", "logs/book.pdf")
    assert conversation.drop("sea.txt") == "logs/sea.txt: ticked off already."
    assert [line[:3] for line in conversation.files().splitlines()] == ["[ ]", "[ ]"]
    conversation.add("sea.txt")
    tokens = f"{script.layout.documents[0].tokens:,}"
    assert conversation.files().splitlines()[0].split() == ["[x]", tokens, "logs/sea.txt"]
    conversation.given = {"logs": tmp_path}
    new = tmp_path / "new file.txt"
    new.write_text("new")
    said = conversation.add(str(new))
    assert f"'hga-chat ingest {tmp_path} '{new}'' reads all of it into a new session" in said
    assert conversation.add(str(tmp_path / "nothing.txt")).startswith("No document is called")


def test_without_documents_an_at_sign_is_text(engine):
    answer, _ = ask(Conversation(engine, None), "What is @property?")
    assert not answer.scope_note
    assert Conversation(engine, None).files() == "This chat has no documents."
