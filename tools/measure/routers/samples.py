"""Tokens of texts with planted facts, and of the questions after each."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from hga_chat.bench.tasks import make_tasks, single_token_words
from hga_chat.bench.text import depths, make_needles, plant_from
from hga_engine.tokenizer.tokenizer import Tokenizer

_NEEDLES, _TASKS = 10, 2
_COPIES, _COPY_TOKENS, _COPY_LEAD = 6, 96, 16
_LIST_WORDS = 0
_MARGIN = 64


@dataclass(frozen=True)
class Branch:
    """A continuation of the text, independent of the other branches."""

    kind: str
    tokens: tuple[int, ...]
    counted_from: int
    """The first token whose likelihood counts."""


@dataclass(frozen=True)
class Sample:
    """A text, a multiple of 64 tokens long."""

    name: str
    tokens: tuple[int, ...]
    branches: tuple[Branch, ...]


def make_sample(name: str, text: str, tokenizer: Tokenizer, context: int, seed: int) -> Sample:
    """Plant facts in an excerpt that begins where the seed says.

    Raises:
        ValueError: the text is too short.
    """
    needles = make_needles(_NEEDLES, seed)
    words = single_token_words(tokenizer.token_bytes, tokenizer.vocab_size)
    tasks = make_tasks(words, _TASKS, _LIST_WORDS, seed)
    # Two families of tasks ask for words of a list, which is left out here.
    kept = [number for number, fact in enumerate(tasks.facts) if not fact.startswith("# List")]
    facts = [*(needle.fact for needle in needles), *(tasks.facts[number] for number in kept)]
    places = [*depths(_NEEDLES), *(tasks.places[number] for number in kept)]
    # Cutting may lose a few tokens; the context has to be full.
    tokens = plant_from(tokenizer, text, facts, places, context + _MARGIN, seed or None)[:context]
    branches = []
    for needle in needles:
        said = needle.fact.removeprefix("# ").removesuffix(f"{needle.answer}.")
        branches.append(_branch(tokenizer, "needle", needle.question, said, needle.answer))
    branches += [
        _branch(tokenizer, task.family, task.question, "", task.text)
        for task in tasks.tasks
        if not task.family.endswith("words")
    ]
    starts = [(context - _COPY_TOKENS) * number // _COPIES for number in range(_COPIES)]
    copied = [tuple(tokens[first : first + _COPY_TOKENS]) for first in starts]
    branches += [Branch("copy", one, _COPY_LEAD) for one in copied]
    return Sample(f"{name}, seed {seed}", tuple(tokens), tuple(branches))


def _branch(tokenizer: Tokenizer, kind: str, question: str, said: str, answer: str) -> Branch:
    asked = [*tokenizer.to_next_question(), *tokenizer.encode(question), *tokenizer.to_answer()]
    lead = tokenizer.encode(said) if said else []
    whole = tokenizer.encode(said + answer)
    return Branch(kind, (*asked, *whole), len(asked) + len(lead))


def write_samples(path: Path, samples: Iterable[Sample]) -> None:
    """Write one JSON object per line."""
    path.write_text("".join(f"{json.dumps(asdict(sample))}\n" for sample in samples))


def read_samples(path: Path) -> Iterator[Sample]:
    """Yield what ``write_samples`` wrote."""
    for line in path.read_text().splitlines():
        read = json.loads(line)
        branches = (
            Branch(b["kind"], tuple(b["tokens"]), b["counted_from"]) for b in read["branches"]
        )
        yield Sample(read["name"], tuple(read["tokens"]), tuple(branches))
