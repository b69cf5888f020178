"""Tell which passages state an answer, word by word."""

import re
from collections.abc import Sequence

from hga_chat.sources import Source

MOST_WORDS_BESIDE_FIGURES = 4
"""An answer with figures and more long words than these says more than its figures."""
_LEAST_LETTERS = 4
_WORD = re.compile(r"[^\W_]+")


def stating(question: str, answer: str, sources: Sequence[Source]) -> tuple[Source, ...]:
    """Return those sources that hold every figure of an answer; without figures, every long word.

    What the question says already does not count. A model may know such an answer by heart, so
    that hiding the passage would cost nothing.
    """
    new = _words(answer) - _words(question)
    figures = {word for word in new if any(map(str.isdigit, word))}
    long = {word for word in new - figures if len(word) >= _LEAST_LETTERS}
    if figures and len(long) > MOST_WORDS_BESIDE_FIGURES:
        return ()
    facts = figures or long
    return tuple(source for source in sources if facts and facts <= _words(source.text))


def _words(text: str) -> set[str]:
    return set(_WORD.findall(text.lower()))
