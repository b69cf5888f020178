"""What a model thinks before it answers, told from the answer."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from hga_engine.config import SamplingParams

_OPEN, _CLOSE = "<think>", "</think>"
"""The tags of Qwen3, DeepSeek-R1 and others."""
CANNOT_THINK = "This model cannot be asked to think before it answers."
THOUGHT_TOKENS = 2048
"""Most tokens of a thought, besides those of the answer."""


@dataclass(frozen=True)
class Thought:
    """More of what the model thinks."""

    text: str


class ThoughtSplitter:
    """Tells the text between the tags, at the beginning of an answer, from the rest."""

    def __init__(self, *, is_open: bool) -> None:
        """Begin an answer.

        Args:
            is_open: whether the prompt ends with the opening tag.
        """
        self._in: Literal["start", "thought", "gap", "answer"] = "thought" if is_open else "start"
        self._held = ""
        """Text that may be part of a tag, or of the gap between thought and answer."""

    def push(self, text: str) -> tuple[str, str]:
        """Take more text; return what it adds to the thought, and to the answer."""
        held, thought = self._held + text, ""
        if self._in == "start":
            begin = held.lstrip()
            if begin.startswith(_OPEN):
                self._in, held = "thought", begin.removeprefix(_OPEN)
            elif not _OPEN.startswith(begin):
                self._in = "answer"
        if self._in == "thought":
            thought, tag, rest = held.partition(_CLOSE)
            if tag:
                self._in, held = "gap", rest
            else:
                cut = len(thought) - _begun(thought, _CLOSE)
                thought, held = thought[:cut], thought[cut:]
        if self._in == "gap" and held.strip():
            self._in, held = "answer", held.lstrip()
        is_answer = self._in == "answer"
        self._held = "" if is_answer else held
        return thought, held if is_answer else ""

    def finish(self) -> tuple[str, str]:
        """Return what was held back, at the end of the answer."""
        held, self._held = self._held, ""
        match self._in:
            case "thought":
                return held, ""
            case "gap":
                return "", ""
        return "", held


def _begun(text: str, tag: str) -> int:
    """Return how many characters at the end of a text may begin a tag."""
    lengths = range(len(tag) - 1, 0, -1)
    return next((length for length in lengths if text.endswith(tag[:length])), 0)


def for_thinking(sampling: "SamplingParams") -> "SamplingParams":
    """Return sampling with room for a thought, and not greedy.

    Greedy thoughts repeat themselves without end; the values are those that Qwen recommends.
    """
    longer = replace(sampling, max_new_tokens=sampling.max_new_tokens + THOUGHT_TOKENS)
    if sampling.temperature > 0:
        return longer
    return replace(longer, temperature=0.6, top_p=0.95, top_k=20)
