from markdown_it import MarkdownIt

from hga_chat.documents import Document, LoadedDocuments, Section
from hga_chat.sessions.export import as_markdown
from hga_chat.sessions.types import Origin, SavedDocuments, SavedTurn, SavedTurns, SessionInfo
from hga_chat.sources import Source
from hga_engine.events import Finished

NAME = "we`ird\n# name.md"


def exported(text, source_text, question="Is it?"):
    section = Section(NAME, NAME, "text", 1, 1, None)
    loaded = LoadedDocuments((Document(NAME, "markdown", (section,)),), ())
    source = Source(NAME, NAME, 3, 4, None, 0.5, source_text, 0, 4)
    finished = Finished("length", 5, 2, 0.1, 0.2, 40.0, 0.03)
    turn = SavedTurn(question, text, (source,), finished, (1, 2))
    origin = Origin(("/books",), (), (), "scripted", 4096, "hga", 64)
    info = SessionInfo("abc123", "books", "2026-01-02T03:04:05Z", ("x",), origin, "m", "0" * 64)
    turns = SavedTurns("2026-01-02T03:04:05Z", (turn,))
    return as_markdown(info, SavedDocuments(loaded, (1_234,)), turns)


def test_passages_and_names_cannot_break_the_markdown():
    text = exported("Yes.", "```\n# not a heading\n````\n> nor a quote")
    tokens = MarkdownIt().parse(text)
    headings = [
        tokens[n + 1].content for n, token in enumerate(tokens) if token.type == "heading_open"
    ]
    assert headings == ["books", "Question 1"]
    (fence,) = [token for token in tokens if token.type == "fence"]
    assert fence.content == "```\n# not a heading\n````\n> nor a quote\n"
    code = [
        child.content
        for token in tokens
        for child in token.children or []
        if child.type == "code_inline"
    ]
    assert code == ["we`ird # name.md", "we`ird # name.md:3-4"]


def test_question_answer_and_finish_reason_are_exported():
    text = exported("**Yes.**", "passage", "Is it\nblue?")
    assert "> Is it\n> blue?\n\n**Yes.**\n\n*The answer hit the length limit.*\n" in text
    assert "1,234 tokens in 1 documents" in text
    assert "- 50% " in text
