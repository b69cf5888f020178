import pytest

from hga_chat.conversation.thought import THOUGHT_TOKENS, ThoughtSplitter, for_thinking
from hga_engine.config import SamplingParams


def split(pieces, *, is_open=False):
    """Return thought and answer of a text that comes in pieces."""
    splitter = ThoughtSplitter(is_open=is_open)
    found = [*map(splitter.push, pieces), splitter.finish()]
    return tuple("".join(parts) for parts in zip(*found, strict=True))


CASES = [
    ("<think>\nIs it?\n</think>\n\nYes.", False, ("\nIs it?\n", "Yes.")),
    ("\n<think>Is it?</think>Yes. </think>", False, ("Is it?", "Yes. </think>")),
    ("Is it?</think>\nYes.", True, ("Is it?", "Yes.")),
    ("  Yes, <think> is a tag.", False, ("", "  Yes, <think> is a tag.")),
    ("<think>\n\n</think>\n\n", False, ("\n\n", "")),
    ("<think>a < b, </thin", False, ("a < b, </thin", "")),
    ("<thi", False, ("", "<thi")),
    ("", False, ("", "")),
]


@pytest.mark.parametrize(("text", "is_open", "expected"), CASES)
@pytest.mark.parametrize("size", [1, 2, 5, 100])
def test_a_thought_is_told_from_the_answer(text, is_open, expected, size):
    pieces = [text[at : at + size] for at in range(0, len(text), size)]
    assert split(pieces, is_open=is_open) == expected


def test_what_is_no_tag_comes_at_once():
    splitter = ThoughtSplitter(is_open=False)
    assert splitter.push("<think>")[0] == ""
    assert splitter.push("a <")[0] == "a "
    assert splitter.push("b")[0] == "<b"


def test_thinking_is_not_greedy_and_has_room():
    sampling = for_thinking(SamplingParams(max_new_tokens=100, seed=3))
    assert sampling.temperature > 0
    assert (sampling.max_new_tokens, sampling.seed) == (100 + THOUGHT_TOKENS, 3)
    assert for_thinking(SamplingParams(temperature=0.2)).temperature == 0.2
