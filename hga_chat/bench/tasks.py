"""Makes questions that are hard for sparse attention from a model's vocabulary.

These are families of RULER (Hsieh et al., 2024, arXiv 2404.06654): one of many similar facts,
several facts at once, a chain of facts, and properties of a whole list. Chains lead from a name to
its value; RULER's direction, from a value to all its names, is too hard for small models.
"""

import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

FAMILIES = ("many keys", "many values", "variables", "common words", "frequent words")

_WORD = re.compile(rb" [a-z]{4,8}")
_LEAST_WORDS = 200
_KEYS, _VALUES, _CHAIN = 8, 4, 2
_COMMON, _FREQUENT = 5, 3
_COMMON_TIMES, _OTHER_TIMES = 10, 2
_ZIPF = 2.0
_RESERVED = {
    "called",
    "coded",
    "common",
    "door",
    "list",
    "locker",
    "most",
    "number",
    "numbers",
    "occur",
    "often",
    "that",
    "value",
    "variable",
    "words",
    "written",
}
"""Words of the questions and answers themselves; they never serve as names."""


@dataclass(frozen=True)
class Task:
    """A question about lines that are planted in a text."""

    family: str
    question: str
    answers: tuple[str, ...]
    """The words that the right answer contains, in this order."""
    text: str
    """The right answer."""


@dataclass(frozen=True)
class TaskSet:
    """Tasks, and the facts to plant for them."""

    tasks: tuple[Task, ...]
    facts: tuple[str, ...]
    places: tuple[float, ...]
    """Depth of each fact in the text, 0 to 1."""


def single_token_words(token_bytes: Callable[[int], bytes], vocab_size: int) -> list[str]:
    """Return the words that are one token, with a leading space, in a vocabulary.

    Raises:
        ValueError: there are too few of them to make tasks.
    """
    pieces = map(token_bytes, range(vocab_size))
    words = sorted({piece.decode().strip() for piece in pieces if _WORD.fullmatch(piece)})
    if len(words) < _LEAST_WORDS:
        raise ValueError(f"the vocabulary has {len(words)} whole words; {_LEAST_WORDS} are needed")
    return words


def make_tasks(words: Sequence[str], count: int, list_words: int, seed: int) -> TaskSet:
    """Make ``count`` tasks of each family, and one of each family with a list.

    Args:
        words: the words to choose names from.
        count: tasks of each family.
        list_words: words in each list.
        seed: seed of all choices.
    """
    draw = random.Random(seed)  # noqa: S311
    free = [word for word in words if word not in _RESERVED]
    pool = iter(draw.sample(free, len(free)))
    made: list[tuple[list[Task], list[str]]] = [
        _many_keys(draw, pool, count),
        *(_many_values(draw, pool) for _ in range(count)),
        *(_variables(draw, pool) for _ in range(count)),
    ]
    if count:
        made.append(_common_words(draw, pool, list_words))
        made.append(_frequent_words(draw, pool, list_words))
    tasks = [task for made_tasks, _ in made for task in made_tasks]
    facts, places = [], []
    for _, lines in made:
        facts += lines
        places += sorted(draw.random() for _ in lines)
    return TaskSet(tuple(tasks), tuple(facts), tuple(places))


def _number(draw: random.Random) -> str:
    return str(draw.randrange(10_000, 100_000))


def _many_keys(
    draw: random.Random, pool: Iterator[str], count: int
) -> tuple[list[Task], list[str]]:
    numbers = {next(pool): _number(draw) for _ in range(max(_KEYS, count) if count else 0)}
    tasks = [
        Task(
            "many keys",
            f"What is the number of the locker called {key}?",
            (number,),
            f"The number of the locker called {key} is {number}.",
        )
        for key, number in list(numbers.items())[:count]
    ]
    facts = [f"# The number of the locker called {key} is {n}." for key, n in numbers.items()]
    return tasks, facts


def _many_values(draw: random.Random, pool: Iterator[str]) -> tuple[list[Task], list[str]]:
    key, numbers = next(pool), [_number(draw) for _ in range(_VALUES)]
    task = Task(
        "many values",
        f"What are all the numbers written on the door called {key}?",
        tuple(numbers),
        f"The numbers written on the door called {key} are {', '.join(numbers)}.",
    )
    return [task], [f"# A number written on the door called {key} is {n}." for n in numbers]


def _variables(draw: random.Random, pool: Iterator[str]) -> tuple[list[Task], list[str]]:
    names = [next(pool) for _ in range(_CHAIN)]
    values = [*names[1:], _number(draw)]
    said = [f"The value of the variable {n} is {v}." for n, v in zip(names, values, strict=True)]
    task = Task(
        "variables",
        f"What is the value of the variable {names[0]}, and the value of that, up to the number?",
        tuple(values),
        " ".join(said),
    )
    return [task], [f"# {fact}" for fact in reversed(said)]


def _common_words(
    draw: random.Random, pool: Iterator[str], length: int
) -> tuple[list[Task], list[str]]:
    common = [next(pool) for _ in range(_COMMON)]
    listed = common * _COMMON_TIMES
    others = max(length - len(listed), 0) // _OTHER_TIMES
    listed += [word for _, word in zip(range(others), pool, strict=False)] * _OTHER_TIMES
    draw.shuffle(listed)
    task = Task(
        "common words",
        f"Which {_COMMON} words occur most often in the list of common words?",
        tuple(common),
        f"The words that occur most often are {', '.join(common)}.",
    )
    return [task], [f"# List of common words: {' '.join(listed)}"]


def _frequent_words(
    draw: random.Random, pool: Iterator[str], length: int
) -> tuple[list[Task], list[str]]:
    """Make a list whose word frequencies fall with the square of the rank, as RULER's do."""
    ranked = [word for _, word in zip(range(50), pool, strict=False)]
    weights = [rank**-_ZIPF for rank in range(1, len(ranked) + 1)]
    listed = draw.choices(ranked, weights, k=length)
    frequent = sorted(dict.fromkeys(listed), key=lambda word: -listed.count(word))[:_FREQUENT]
    task = Task(
        "frequent words",
        f"Which {_FREQUENT} words occur most often in the list of coded words?",
        tuple(frequent),
        f"The words that occur most often are {', '.join(frequent)}.",
    )
    return [task], [f"# List of coded words: {' '.join(listed)}"]
