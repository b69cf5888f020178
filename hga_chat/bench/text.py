"""Texts to measure on, and facts planted in them."""

import random
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_PLACES = (
    *("Amberfield", "Birchwater", "Coldharbour", "Dunmore", "Eastleigh", "Foxglove", "Greystone"),
    *("Hollowbrook", "Ironbridge", "Juniper", "Kingsfold", "Larkspur", "Marblehead", "Northgate"),
    *("Oakhurst", "Pinewood", "Quarry Bank", "Ravenscar", "Silverdale", "Thornbury", "Underhill"),
    *("Valewood", "Westmarch", "Yarrow", "Zennor", "Ashdown", "Bramble", "Copperhill", "Drayton"),
    *("Elmstead", "Fernley", "Gorse Hill"),
)


@dataclass(frozen=True)
class Needle:
    """A fact that stands once in the text."""

    fact: str
    question: str
    answer: str


def standard_text() -> str:
    """Sources of Python's asyncio package: real code that is at hand wherever Python is."""
    package = Path(sysconfig.get_paths()["stdlib"]) / "asyncio"
    return "\n".join(path.read_text(encoding="utf-8") for path in sorted(package.glob("*.py")))


def make_needles(count: int, seed: int) -> list[Needle]:
    """Facts about distinct places, each with a five-digit answer.

    Raises:
        ValueError: more facts are asked for than there are places.
    """
    if count > len(_PLACES):
        raise ValueError(f"at most {len(_PLACES)} needles can be planted, not {count}")
    draw = random.Random(seed)  # noqa: S311
    return [
        Needle(
            fact=f"The access code for {place} is {code}.",
            question=f"What is the access code for {place}?",
            answer=str(code),
        )
        for place in draw.sample(_PLACES, count)
        for code in [draw.randrange(10_000, 100_000)]
    ]


def plant(text: str, needles: Sequence[Needle]) -> str:
    """Put the facts into ``text`` on lines of their own, at even depths."""
    lines = text.splitlines(keepends=True)
    planted: list[str] = []
    done = 0
    for number, line in enumerate(lines):
        while done < len(needles) and number >= len(lines) * (done + 0.5) / len(needles):
            planted.append(f"# {needles[done].fact}\n")
            done += 1
        planted.append(line)
    planted.extend(f"# {needle.fact}\n" for needle in needles[done:])
    return "".join(planted)
