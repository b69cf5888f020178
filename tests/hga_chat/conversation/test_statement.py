"""Which passages state an answer."""

import pytest

from hga_chat.conversation.statement import stating
from hga_chat.sources import Source

WIDTH = "class TextWrapper:\n    def __init__(self, width=70, tabsize=8):"
BREAKS = "break_long_words splits words that are longer than the width"


def source(text: str) -> Source:
    """Return a source with a text."""
    return Source("a.py", "a.py", 1, 2, None, 0.5, text, 0, 16)


@pytest.mark.parametrize(
    ("question", "answer", "states"),
    [
        ("What is the default width?", "The default width is 70.", [True, False]),
        ("What is the default width?", "The default width is 80.", [False, False]),
        ("What is the default width?", "It is 70 with a tabsize of 8.", [True, False]),
        ("What is the default width?", "It is 70 with a tabsize of 4.", [False, False]),
        # What the question says is no fact.
        ("Is 70 the default width?", "Yes, it is 70.", [False, False]),
        # Without figures every long word counts.
        ("What does it split?", "Words longer than the width.", [False, True]),
        ("What does it split?", "Words longer than the paragraph.", [False, False]),
        # One figure does not carry a long explanation.
        (
            "What is a tab?",
            "A tab moves the cursor forward until its column divides evenly by 8 columns.",
            [False, False],
        ),
        ("Hello", "Hello", [False, False]),
        ("", "", [False, False]),
    ],
)
def test_a_passage_states_an_answer_whose_facts_it_holds(
    question: str, answer: str, states: list[bool]
) -> None:
    sources = (source(WIDTH), source(BREAKS))
    found = stating(question, answer, sources)
    assert [one in found for one in sources] == states
