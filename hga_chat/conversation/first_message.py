"""A first message: what the documents are about, and questions to ask."""

import re
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hga_chat.conversation.prompts import first_question, next_question
from hga_chat.scope import Scope
from hga_engine.config import SamplingParams
from hga_engine.events import TextDelta

if TYPE_CHECKING:
    from hga_chat.conversation.conversation import Conversation

# Small models do one thing at a time.
_SUMMARY = "Say in two sentences what this text is about."
_QUESTIONS = (
    "Write three short questions that this text answers, numbered 1., 2. and 3., in its language. "
    "Write only the questions."
)
_MOST_TOKENS, _SENTENCES, _MOST_QUESTIONS = 128, 2, 3
_QUESTION = re.compile(r"(?:Q(?:uestion)?\s*)?(?:\d[.):]|[-•])\s*(\S.*)|(\S.*[?？؟])")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])")
_HEADING = re.compile(r"\W*(?:summary|answer)\W*:\W*", re.IGNORECASE)
_MARKUP = re.compile(r"[*_`#]{1,3}(?=\S)|(?<=\S)[*_`#]{1,3}")


@dataclass(frozen=True)
class FirstMessage:
    """What the documents are about, and questions about them."""

    summary: str
    questions: tuple[str, ...]


def first_message(
    conversation: "Conversation", cancel: threading.Event | None = None
) -> FirstMessage | None:
    """Let the model introduce the documents; afterwards the session is as it was.

    Args:
        conversation: its documents are prefilled, and it has no turns.
        cancel: set by another thread to stop.

    Returns:
        None if it was cancelled, or if the model wrote neither.

    Raises:
        EngineError: the engine failed, or there is no room left.
    """
    engine = conversation.engine
    tokenizer, before = engine.tokenizer, engine.num_tokens
    sampling = SamplingParams(max_new_tokens=_MOST_TOKENS)

    def reply(prompt: list[int]) -> str:
        with conversation.leaving_out(Scope(without=conversation.dropped)):
            events = engine.answer(prompt, sampling, cancel)
            return "".join(event.text for event in events if isinstance(event, TextDelta))

    try:
        summary = reply(first_question(tokenizer, _SUMMARY, after_documents=True))
        if cancel is not None and cancel.is_set():
            return None
        questions = reply(next_question(tokenizer, _QUESTIONS))
    finally:
        engine.truncate(before)
    return None if cancel is not None and cancel.is_set() else understood(summary, questions)


def understood(summary: str, questions: str) -> FirstMessage | None:
    """Return what the model wrote without what it was not asked for; None if it wrote nothing."""
    text = " ".join(_HEADING.sub("", _MARKUP.sub("", summary), count=1).split())
    sentences = _SENTENCE_END.split(text)[:_SENTENCES]
    lines = (_QUESTION.fullmatch(_MARKUP.sub("", line).strip()) for line in questions.splitlines())
    found = [line[1] or line[2] for line in lines if line is not None]
    if not text and not found:
        return None
    return FirstMessage(" ".join(sentences), tuple(found[:_MOST_QUESTIONS]))
