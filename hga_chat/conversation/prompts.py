"""The tokens around documents, questions and answers, and the room they take."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hga_engine.protocol import ChatTokenizer

QUESTION_ROOM = 512
"""Least number of tokens that documents leave free for the question; the answer has its own."""


def first_question(
    tokenizer: "ChatTokenizer", question: str, *, after_documents: bool, thinking: bool = False
) -> list[int]:
    """Return the tokens of the first question, which ends the user message with the documents."""
    text = f"\n\n{question}" if after_documents else question
    return [*tokenizer.encode(text), *tokenizer.to_answer(thinking=thinking)]


def next_question(
    tokenizer: "ChatTokenizer", question: str, *, thinking: bool = False
) -> list[int]:
    """Return the tokens of a later question; they also close the answer before it."""
    return [
        *tokenizer.to_next_question(),
        *tokenizer.encode(question),
        *tokenizer.to_answer(thinking=thinking),
    ]


def room_for_documents(
    tokenizer: "ChatTokenizer",
    context: int,
    max_new_tokens: int,
    question: str = "",
    system: str = "",
) -> int:
    """Return how many document tokens fit in ``context`` with the question and its answer."""
    asking = len(first_question(tokenizer, question, after_documents=True))
    opening = len(tokenizer.opening(system or None))
    return max(context - opening - max(asking, QUESTION_ROOM) - max_new_tokens, 0)
