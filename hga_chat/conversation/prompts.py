"""The tokens around documents, questions and answers, and the room they take."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hga_engine.tokenizer.tokenizer import Tokenizer

QUESTION_ROOM = 512
"""Tokens that a document leaves free for the question, besides those of the answer."""


def first_question(tokenizer: "Tokenizer", question: str, *, after_documents: bool) -> list[int]:
    """Tokens of the first question, which ends the user message that holds the documents."""
    text = f"\n\n{question}" if after_documents else question
    return [*tokenizer.encode(text), *tokenizer.to_answer()]


def next_question(tokenizer: "Tokenizer", question: str) -> list[int]:
    """Tokens of a further question, which close the answer before it, however that ended."""
    return [
        *tokenizer.to_next_question(),
        *tokenizer.encode(question),
        *tokenizer.to_answer(),
    ]


def room_for_documents(
    tokenizer: "Tokenizer",
    context: int,
    max_new_tokens: int,
    question: str = "",
    system: str | None = None,
) -> int:
    """Document tokens that fit ``context`` beside the question and its answer."""
    asking = len(first_question(tokenizer, question, after_documents=True))
    opening = len(tokenizer.opening(system))
    return max(context - opening - max(asking, QUESTION_ROOM) - max_new_tokens, 0)
