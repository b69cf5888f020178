import random
import re

import pytest

from hga_chat.bench.text import make_needles
from tools.adapter.facts import hard_facts, single_facts
from tools.adapter.questions import about

WORDS = [f"word{number:03}" for number in range(400)]
CODE = '''"""A module."""

import os

LIMIT_OF_ALL = 42


class Kettle(Vessel, Hot):
    """Holds water until it boils, then whistles."""

    def fill_up(self, litres, *, slowly=True):
        """Pour in some water, never too much of it."""
        return litres

    def empty_out(self):
        return 0


def boil_water(kettle, minutes=3):
    """Heat a kettle for a number of minutes."""
    for _ in range(minutes):
        kettle.heat()
    return kettle
'''
MANUAL = """# Kettles

A kettle is a vessel that heats water for tea.

## Filling

Never fill a kettle above the mark on its side. It would boil over.

## Cleaning

Vinegar takes the scale away in half an hour. Rinse well.
"""


@pytest.mark.parametrize("seed", range(8))
def test_each_answer_occurs_in_its_line_or_is_unknown(seed):
    for fact in single_facts(random.Random(seed), 40):
        [asked] = fact.questions
        if not fact.lines:
            assert "does not say" in asked.answer
            continue
        words = set(re.findall(r"\w+", asked.answer)) - {"The", "of", "for", "is"}
        assert words <= set(re.findall(r"\w+", fact.lines[0]))
        unasked = words - set(re.findall(r"\w+", asked.question))
        assert unasked, "the question gives the answer away"


@pytest.mark.parametrize("seed", range(8))
def test_no_question_has_two_answers(seed):
    facts = single_facts(random.Random(seed), 60)
    questions = [asked.question for fact in facts for asked in fact.questions]
    assert len(set(questions)) == len(questions)


def test_no_name_is_one_of_the_benchmarks():
    measured = {
        needle.question.removeprefix("What is the access code for ").rstrip("?")
        for needle in make_needles(32, 0)
    }
    lines = [
        line
        for seed in range(60)
        for fact in single_facts(random.Random(seed), 60)
        for line in fact.lines
    ]
    assert not [name for name in measured if any(name in line for line in lines)]


@pytest.mark.parametrize("seed", range(8))
def test_hard_facts_are_answered_by_their_lines(seed):
    for fact in hard_facts(random.Random(seed), WORDS, 300):
        text = "\n".join(fact.lines)
        for asked in fact.questions:
            for word in re.findall(r"word\d+|\d{5}", asked.answer):
                assert re.search(rf"\b{word}\b", text)
        if "most often" in fact.questions[0].question:
            listed = text.partition(": ")[2].split()
            named = re.findall(r"word\d+", fact.questions[0].answer)
            least = min(listed.count(word) for word in named)
            assert all(listed.count(word) <= least for word in set(listed) - set(named))
        if "variables" in fact.questions[0].question:
            number = re.search(r"\d{5}", fact.questions[0].question)[0]
            values = dict(line.split(" = ") for line in fact.lines)
            for name in re.findall(r"word\d+", fact.questions[0].answer):
                while name in values:
                    name = values[name]
                assert name == number


def asked_about(text, path, kind):
    found = {}
    for seed in range(20):
        for one in about(text, path, kind, random.Random(seed)):
            found[one.asked.question] = one
    return found


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("In which file is the class Kettle defined?", "a/kettle.py"),
        ("In which file is the function boil_water defined?", "a/kettle.py"),
        ("Which class does Kettle inherit from?", "Kettle inherits from Vessel, Hot."),
        ("Which methods does the class Kettle have?", "fill_up, empty_out"),
        ("What is the value of LIMIT_OF_ALL in a/kettle.py?", "LIMIT_OF_ALL is 42."),
        (
            "What are the parameters of fill_up?",
            "The parameters of fill_up are self, litres, slowly.",
        ),
        (
            "What is the default value of minutes in boil_water?",
            "The default value of minutes in boil_water is 3.",
        ),
        (
            "What is the first line of the docstring of the class Kettle?",
            "Holds water until it boils, then whistles.",
        ),
        (
            "Show me the function boil_water.",
            "```python\ndef boil_water(kettle, minutes=3):\n"
            '    """Heat a kettle for a number of minutes."""\n'
            "    for _ in range(minutes):\n        kettle.heat()\n    return kettle\n```",
        ),
        (
            "Which line follows this line in a/kettle.py?\n"
            "def fill_up(self, litres, *, slowly=True):",
            '"""Pour in some water, never too much of it."""',
        ),
    ],
)
def test_questions_about_code(question, answer):
    assert asked_about(CODE, "a/kettle.py", "code")[question].asked.answer == answer


def test_code_that_is_cut_off_is_asked_about_up_to_the_cut():
    cut = CODE[: CODE.index("kettle.heat")]
    assert "Which class does Kettle inherit from?" in asked_about(cut, "k.py", "code")
    assert not list(about("def (:\n" * 40, "k.py", "code", random.Random(0)))


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        (
            "What is the first sentence under the heading Filling?",
            "Never fill a kettle above the mark on its side.",
        ),
        ("Which heading follows Filling in tea.md?", "Cleaning"),
    ],
)
def test_questions_about_headings(question, answer):
    one = asked_about(MANUAL, "tea.md", "manual")[question]
    assert one.asked.answer == answer
    assert answer in MANUAL[one.start : one.end]
