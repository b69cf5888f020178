"""A conversation about two documents, over a scripted engine."""

from dataclasses import replace

from hga_chat.conversation.conversation import Conversation
from hga_chat.documents import Document, LoadedDocuments, Section, Skipped, lay_out
from hga_chat.sessions.types import Origin
from tests.support.scripted import ScriptedEngine, ScriptedTokenizer


def section(path, text, **place):
    lines = text.count("\n") or 1
    return Section(path, path, text, **{"start_line": 1, "end_line": lines, "page": None, **place})


def documents():
    """Return two documents: one of 100 lines of 8 tokens each and their newlines, one of a page."""
    long = "".join(f"line {n} of the log says calm\n" for n in range(100))
    return LoadedDocuments(
        (
            Document("logs/sea.txt", "text", (section("logs/sea.txt", long),)),
            Document(
                "logs/book.pdf",
                "pdf",
                (
                    section(
                        "logs/book.pdf",
                        "The whale is white. " * 40,
                        page="7",
                        start_line=None,
                        end_line=None,
                    ),
                ),
            ),
        ),
        (Skipped("logs/crew.jpg", "binary"),),
    )


class ScriptedConversation:
    """An engine and its conversation, which is created in the engine's thread like a real one."""

    def __init__(self, answers=(), *, loaded=None, with_documents=True, **engine):
        tokenizer = ScriptedTokenizer()
        self.engine = ScriptedEngine(answers, tokenizer=tokenizer, **engine)
        self.layout = lay_out(loaded or documents(), tokenizer) if with_documents else None
        self.skipped = (loaded or documents()).skipped

    def make(self, progress):
        progress("Loading scripted", 0.5)
        return Conversation(self.engine, self.layout, self.skipped if self.layout else ())

    def group_of(self, text):
        """Return the trace bin of the session that holds the first token of ``text``."""
        ids = self.engine.tokenizer.encode(text)
        tokens = self.layout.token_ids
        start = next(n for n in range(len(tokens)) if tokens[n : n + len(ids)] == ids)
        return (start + 1) // 16  # one token opens the session


def keep(conversation, store):
    """Give a conversation a new saved session."""
    origin = Origin(("/logs",), (), (), "scripted", 65_536, "hga", 64)
    saved = store.create("logs", ("logs",), origin, "scripted", conversation.engine.fingerprint)
    engine = conversation.engine
    cache = replace(engine.config.cache, saved_dir=saved.kv_folder)
    engine.config = replace(engine.config, cache=cache)
    conversation.saved = saved
    return conversation
