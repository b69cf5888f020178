"""Facts to plant in texts, in many wordings, with questions about them."""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Question:
    """A question with its answer."""

    question: str
    answer: str


@dataclass(frozen=True)
class Planted:
    """Lines to plant in a text in this order, apart from each other, with their questions."""

    lines: tuple[str, ...]
    questions: tuple[Question, ...]


Words = tuple[str, ...]

_FIRST: Words = ("Ald", "Bren", "Cor", "Dal", "Esk", "Fen", "Gar", "Hal", "Ing", "Jor", "Kel")
_FIRST += ("Lor", "Mar", "Nor", "Osk", "Pel", "Quin", "Ros", "Sel", "Tor", "Ulv", "Ver", "Win")
_FIRST += ("Yel",)
_LAST: Words = ("by", "combe", "dorf", "gard", "ham", "hurst", "lund", "mere", "minster", "ness")
_LAST += ("port", "stad", "stow", "thwaite", "ton", "vik", "wick", "worth", "berg", "holm")
_LAST += ("mouth", "den")
_PEOPLE: Words = ("Ada", "Boris", "Clara", "Dmitri", "Elena", "Farid", "Greta", "Hiro", "Ines")
_PEOPLE += ("Jonas", "Karin", "Leo", "Mina", "Nils", "Olga", "Pavel", "Rosa", "Sven", "Tara")
_PEOPLE += ("Viktor",)
_SURNAMES: Words = ("Abbott", "Berg", "Castro", "Dietz", "Egan", "Fuchs", "Grant", "Holt")
_SURNAMES += ("Ivanov", "Jung", "Kovac", "Lang", "Moretti", "Novak", "Okafor", "Pratt", "Reyes")
_SURNAMES += ("Stone", "Tanaka")
_COLORS: Words = ("amber", "blue", "crimson", "green", "grey", "ivory", "orange", "purple", "red")
_COLORS += ("teal", "white", "yellow", "black", "brown", "pink", "silver")
_ANIMALS: Words = ("badger", "crane", "falcon", "gecko", "heron", "lynx", "marten", "otter", "owl")
_ANIMALS += ("raven", "salmon", "seal", "stork", "tiger", "viper", "wolf", "zebra", "hare", "moth")
_ANIMALS += ("newt",)
_MACHINES: Words = ("server", "printer", "pump", "relay", "scanner", "sensor", "turbine", "router")
_MACHINES += ("crane",)
_CITIES: Words = ("Lisbon", "Oslo", "Quito", "Riga", "Sofia", "Turin", "Vienna", "Dublin")
_CITIES += ("Geneva", "Lima")
_MONTHS = ("January", "March", "April", "June", "July", "August", "October", "November", "December")

Draw = random.Random


def _digits(count: int) -> Callable[[Draw], str]:
    return lambda draw: str(draw.randrange(10 ** (count - 1), 10**count))


def _code(draw: Draw) -> str:
    letters = "".join(draw.choices("ABCDEFGHJKLMNPQRSTUVWXYZ", k=draw.choice((2, 3))))
    return f"{letters}-{draw.randrange(100, 10_000)}"


def _hexadecimal(draw: Draw) -> str:
    return f"{draw.getrandbits(32):08x}"


def _version(draw: Draw) -> str:
    return ".".join(str(draw.randrange(30)) for _ in range(3))


def _password(draw: Draw) -> str:
    return f"{draw.choice(_COLORS)}-{draw.choice(_ANIMALS)}-{draw.randrange(10, 100)}"


def _date(draw: Draw) -> str:
    return f"{draw.randrange(1, 29)} {draw.choice(_MONTHS)} {draw.randrange(1900, 2030)}"


def _person(draw: Draw) -> str:
    return f"{draw.choice(_PEOPLE)} {draw.choice(_SURNAMES)}"


def _pick(values: Sequence[str]) -> Callable[[Draw], str]:
    return lambda draw: draw.choice(values)


_ATTRIBUTES = tuple(
    (name, value_of)
    for value_of, names in (
        (_digits(5), ("access code", "entry code", "account number", "security code")),
        (_digits(5), ("membership number", "secret number", "file number")),
        (_digits(4), ("pin", "telephone extension", "room number", "year of origin")),
        (_digits(6), ("postal code", "ticket number", "population", "case number")),
        (_digits(7), ("magic number", "order number", "phone number")),
        (_digits(3), ("platform", "bus line", "height in metres", "limit")),
        (_code, ("serial number", "locker", "part number", "call sign", "flight")),
        (_hexadecimal, ("checksum", "key", "fingerprint")),
        (_version, ("version", "firmware release")),
        (_password, ("password", "passphrase", "code word")),
        (_date, ("opening date", "deadline", "date of the last inspection")),
        (_person, ("director", "contact person", "owner", "inspector", "caretaker")),
        (_pick(_CITIES), ("home town", "destination", "head office")),
        (_pick(_COLORS), ("color of the gate", "signal color")),
        (_pick(_ANIMALS), ("mascot", "emblem")),
    )
    for name in names
)
"""What a fact can say of a name, and how its values are drawn."""


def _place(draw: Draw) -> str:
    return (
        draw.choice(("", "", "", "New ", "Upper ", "Port "))
        + draw.choice(_FIRST)
        + draw.choice(_LAST)
    )


def _machine(draw: Draw) -> str:
    return f"{draw.choice(_MACHINES)} {draw.randrange(2, 400)}"


def _project(draw: Draw) -> str:
    return f"project {draw.choice(_COLORS).capitalize()} {draw.choice(_ANIMALS).capitalize()}"


_NAMES = (_place, _place, _place, _person, _machine, _project)

_STATEMENTS = (
    "The {a} for {e} is {v}.",
    "The {a} for {e} is {v}.",
    "The {a} of {e} is {v}.",
    "The {a} of {e} is {v}.",
    "Note: {e} has the {a} {v}.",
    "{e}: {a} {v}",
    "Remember that the {a} for {e} is {v}.",
    "{v} is the {a} of {e}.",
    "For {e}, the {a} was set to {v}.",
    "{e} was given {v} as its {a}.",
    "The {a} that belongs to {e} is {v}, as agreed.",
    "{e} | {a} | {v}",
)
_MARKS = ("# ", "# ", "# ", "", "", "// ", "* ", "NOTE: ", "> ", "    # ")
_ASKED = (
    ("What is the {a} for {e}?", "The {a} for {e} is {v}."),
    ("What is the {a} for {e}?", "The {a} for {e} is {v}."),
    ("What is the {a} of {e}?", "The {a} of {e} is {v}."),
    ("What is the {a} of {e}?", "The {a} of {e} is {v}."),
    ("Which {a} does {e} have?", "The {a} of {e} is {v}."),
    ("Tell me the {a} of {e}.", "The {a} of {e} is {v}."),
    ("{e}: what is the {a}?", "The {a} of {e} is {v}."),
    ("I need the {a} for {e}.", "The {a} for {e} is {v}."),
    ("Find the {a} of {e} in the text.", "The {a} of {e} is {v}."),
    ("What is the {a} of {e}? Answer with nothing else.", "{v}"),
    ("Give only the {a} for {e}.", "{v}"),
    ("Which name has the {a} {v}?", "{e}"),
    ("Who or what has the {a} {v}?", "The {a} of {e} is {v}."),
)
_UNKNOWN_SHARE, _SAME_SHARE = 0.03, 0.4


def single_facts(draw: Draw, count: int) -> list[Planted]:
    """Return facts about distinct but similar names, each asked for once."""
    made: list[Planted] = []
    seen: set[tuple[str, str]] = set()
    values: set[str] = set()
    attribute, value_of = draw.choice(_ATTRIBUTES)
    name_of = draw.choice(_NAMES)
    while len(made) < count:
        if draw.random() > _SAME_SHARE:
            attribute, value_of = draw.choice(_ATTRIBUTES)
            name_of = draw.choice(_NAMES)
        words = {"a": attribute, "e": name_of(draw), "v": value_of(draw)}
        asked, answer = draw.choice(_ASKED)
        # What is asked for by its value must be the only one that has it.
        is_by_value = "{v}" in asked
        if (attribute, words["e"]) in seen or (is_by_value and words["v"] in values):
            continue
        seen.add((attribute, words["e"]))
        values.add(words["v"])
        if draw.random() < _UNKNOWN_SHARE and not is_by_value:
            unknown = f"The text does not say what the {attribute} of {words['e']} is."
            made.append(Planted((), (Question(asked.format(**words), unknown),)))
            continue
        line = draw.choice(_MARKS) + draw.choice(_STATEMENTS).format(**words)
        made.append(Planted((line,), (Question(asked.format(**words), answer.format(**words)),)))
    return made


def hard_facts(draw: Draw, words: Sequence[str], room: int) -> Iterator[Planted]:
    """Yield tasks of RULER (arXiv 2404.06654): many keys, values, queries; variables; lists.

    Args:
        draw: of every choice.
        words: to take names from.
        room: tokens that a list may take.
    """
    pool = iter(draw.sample(list(words), len(words)))
    yield _many_keys(draw, pool)
    yield _many_values(draw, pool)
    yield _many_values(draw, pool)
    yield _variables(draw, pool)
    yield _variables(draw, pool)
    if draw.random() < 0.5:
        yield _common(draw, pool, room)
    else:
        yield _frequent(draw, pool, room)


def _many_keys(draw: Draw, pool: Iterator[str]) -> Planted:
    thing = draw.choice(("locker", "box", "drawer", "crate", "shelf", "folder"))
    called = draw.choice(("called", "labelled", "named"))
    numbers = {next(pool): _digits(5)(draw) for _ in range(draw.randrange(4, 16))}
    lines = [f"# The number of the {thing} {called} {key} is {n}." for key, n in numbers.items()]
    asked = draw.sample(list(numbers), min(len(numbers), 6))
    questions = [
        Question(
            f"What is the number of the {thing} {called} {key}?",
            f"The number of the {thing} {called} {key} is {numbers[key]}.",
        )
        for key in asked
    ]
    one, other = draw.sample(list(numbers), 2)
    both = f"What are the numbers of the {thing}s {called} {one} and {other}?"
    questions.append(Question(both, f"{one}: {numbers[one]}, {other}: {numbers[other]}."))
    draw.shuffle(lines)
    return Planted(tuple(lines), tuple(questions))


def _many_values(draw: Draw, pool: Iterator[str]) -> Planted:
    thing = draw.choice(("door", "card", "ticket", "wall", "label", "stone"))
    called = draw.choice(("called", "named", "for"))
    key, numbers = next(pool), [_digits(5)(draw) for _ in range(draw.randrange(2, 6))]
    question = f"What are all the numbers written on the {thing} {called} {key}?"
    answer = f"The numbers written on the {thing} {called} {key} are {', '.join(numbers)}."
    lines = [f"# A number written on the {thing} {called} {key} is {number}." for number in numbers]
    return Planted(tuple(lines), (Question(question, answer),))


def _variables(draw: Draw, pool: Iterator[str]) -> Planted:
    names, number = [next(pool) for _ in range(draw.randrange(2, 6))], _digits(5)(draw)
    lines = [f"{n} = {value}" for n, value in zip(names, [number, *names[:-1]], strict=True)]
    question = draw.choice(
        (
            f"Which variables have the value {number}, by themselves or by way of others?",
            f"Find all variables that are assigned the value {number}, directly or not.",
        )
    )
    answer = f"The variables with the value {number} are {', '.join(names)}."
    last = Question(f"What is the value of the variable {names[-1]}?", f"{names[-1]} is {number}.")
    return Planted(tuple(lines), (Question(question, answer), last))


def _common(draw: Draw, pool: Iterator[str], room: int) -> Planted:
    common = [word for _, word in zip(range(draw.choice((3, 5))), pool, strict=False)]
    listed = common * 10
    others = max(room - len(listed), 0) // 2
    listed += [word for _, word in zip(range(others), pool, strict=False)] * 2
    draw.shuffle(listed)
    title = draw.choice(("common words", "spoken words", "names"))
    return _list(title, listed, sorted(common))


def _frequent(draw: Draw, pool: Iterator[str], room: int) -> Planted:
    ranked = [word for _, word in zip(range(50), pool, strict=False)]
    listed = draw.choices(ranked, [rank**-2.0 for rank in range(1, len(ranked) + 1)], k=room)
    counted = sorted(set(listed), key=lambda word: -listed.count(word))[:3]
    return _list(draw.choice(("coded words", "secret words", "signals")), listed, counted)


def _list(title: str, listed: Sequence[str], most_often: Sequence[str]) -> Planted:
    """Return a list of words and the question which of them occur most often."""
    question = f"Which {len(most_often)} words occur most often in the list of {title}?"
    answer = f"The words that occur most often are {', '.join(most_often)}."
    return Planted((f"# List of {title}: {' '.join(listed)}",), (Question(question, answer),))
