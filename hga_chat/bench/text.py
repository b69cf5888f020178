"""Makes texts to measure on, with facts planted in them."""

import random
import sysconfig
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hga_engine.tokenizer.tokenizer import Tokenizer

_PLACES = (
    "Amberfield",
    "Birchwater",
    "Coldharbour",
    "Dunmore",
    "Eastleigh",
    "Foxglove",
    "Greystone",
    "Hollowbrook",
    "Ironbridge",
    "Juniper",
    "Kingsfold",
    "Larkspur",
    "Marblehead",
    "Northgate",
    "Oakhurst",
    "Pinewood",
    "Quarry Bank",
    "Ravenscar",
    "Silverdale",
    "Thornbury",
    "Underhill",
    "Valewood",
    "Westmarch",
    "Yarrow",
    "Zennor",
    "Ashdown",
    "Bramble",
    "Copperhill",
    "Drayton",
    "Elmstead",
    "Fernley",
    "Gorse Hill",
)
_MARGIN = 64
"""Tokens that a text may lose at the cut."""


@dataclass(frozen=True)
class Needle:
    """A fact that occurs once in the text."""

    fact: str
    question: str
    answer: str


def standard_text() -> str:
    """Return the source of Python's asyncio package: real code that comes with every Python."""
    package = Path(sysconfig.get_paths()["stdlib"]) / "asyncio"
    return "\n".join(path.read_text(encoding="utf-8") for path in sorted(package.glob("*.py")))


def make_needles(count: int, seed: int) -> list[Needle]:
    """Make facts about different places, each with a five-digit answer.

    Raises:
        ValueError: ``count`` exceeds the number of places.
    """
    if count > len(_PLACES):
        raise ValueError(f"at most {len(_PLACES)} needles can be planted, not {count}")
    draw = random.Random(seed)  # noqa: S311
    return [
        Needle(
            fact=f"# The access code for {place} is {code}.",
            question=f"What is the access code for {place}?",
            answer=str(code),
        )
        for place in draw.sample(_PLACES, count)
        for code in [draw.randrange(10_000, 100_000)]
    ]


def depths(count: int) -> list[float]:
    """Return evenly spaced depths from 0, the beginning, to 1, the end; 0.5 for a single fact."""
    return [number / (count - 1) for number in range(count)] if count > 1 else [0.5] * count


def plant(text: str, facts: Sequence[str], places: Sequence[float]) -> str:
    """Insert facts between the lines of a text.

    Args:
        text: the text.
        facts: one or more lines each.
        places: share of the lines before each fact, 0 to 1.
    """
    lines = text.splitlines(keepends=True)
    planted: list[str] = []
    done = 0
    for place, fact in sorted(zip(places, facts, strict=True), key=lambda pair: pair[0]):
        number = round(place * len(lines))
        planted += [*lines[done:number], f"{fact}\n"]
        done = number
    return "".join([*planted, *lines[done:]])


def plant_from(
    tokenizer: Tokenizer,
    text: str,
    facts: Sequence[str],
    places: Sequence[float],
    tokens: int,
    seed: int | None,
) -> list[int]:
    """Return ``tokens`` tokens, or a few less, of a text with facts planted in it.

    Args:
        tokenizer: the model's tokenizer.
        text: the text to take an excerpt from.
        facts: one or more lines each.
        places: share of the excerpt's lines before each fact, 0 to 1.
        tokens: length of the excerpt, facts included.
        seed: chooses where the excerpt begins; None: at the beginning of the text.

    Raises:
        ValueError: the text is too short.
    """
    whole = tokenizer.encode(text)
    planted = sum(len(tokenizer.encode(f"{fact}\n")) for fact in facts)
    spare = max(len(whole) - tokens + planted - _MARGIN, 0)
    start = 0 if seed is None else random.Random(seed).randrange(spare + 1)  # noqa: S311
    rest = tokenizer.decode(whole[start:])
    return cut(tokenizer.encode, tokenizer.decode, rest, facts, places, tokens)


def cut(
    encode: Callable[[str], list[int]],
    decode: Callable[[Sequence[int]], str],
    text: str,
    facts: Sequence[str],
    places: Sequence[float],
    tokens: int,
) -> list[int]:
    """Cut a text with planted facts to ``tokens`` tokens, or a few less.

    Raises:
        ValueError: the text is too short.
    """
    whole = encode(text)
    room = tokens - sum(len(encode(f"{fact}\n")) for fact in facts)
    if not 0 < room <= len(whole):
        needed = f"{tokens:,} tokens, {tokens - room:,} of them planted, are needed"
        raise ValueError(f"the text has {len(whole):,} tokens; {needed}")
    while True:
        # Tokens may differ from those counted where the text is cut and where facts are inserted.
        token_ids = encode(plant(decode(whole[:room]), facts, places))
        surplus = len(token_ids) - tokens
        if surplus <= 0:
            return token_ids
        room -= surplus
