"""Thirty prompts with checkable answers, to verify that short questions are still answered."""

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Checkable:
    """A prompt and the pattern of its answer, in any case."""

    prompt: str
    pattern: str

    def is_right(self, answer: str) -> bool:
        """Return whether an answer matches the pattern."""
        return re.search(self.pattern, answer, re.IGNORECASE | re.DOTALL) is not None


PROMPTS = tuple(
    Checkable(prompt, pattern)
    for prompt, pattern in (
        ("What is 2 + 2?", r"\b4\b|\bfour\b"),
        ("What is 7 + 5?", r"\b12\b|\btwelve\b"),
        ("What is 10 - 3?", r"\b7\b|\bseven\b"),
        ("What is 3 times 4?", r"\b12\b|\btwelve\b"),
        ("How many days are in a week?", r"\b7\b|\bseven\b"),
        ("How many months are in a year?", r"\b12\b|\btwelve\b"),
        ("What is the capital of France?", r"\bParis\b"),
        ("What is the capital of Japan?", r"\bTokyo\b"),
        ("What is the capital of Italy?", r"\bRome\b"),
        ("Who wrote Romeo and Juliet?", r"Shakespeare"),
        ("Which planet is known as the Red Planet?", r"\bMars\b"),
        ("What is the largest ocean on Earth?", r"Pacific"),
        ("What gas do plants take in from the air?", r"carbon dioxide|CO2"),
        ("What is the chemical symbol of water?", r"H2O|H₂O"),
        ("At which temperature in degrees Celsius does water boil?", r"\b100\b"),
        ("What is the opposite of hot?", r"\bcold\b|\bcool\b"),
        ("Name the three primary colors.", r"red.*blue|blue.*red"),
        ("List the four seasons.", r"(?=.*spring)(?=.*summer)(?=.*winter).*(autumn|fall)"),
        ("What color do you get when you mix blue and yellow?", r"\bgreen\b"),
        ("Translate the word 'cat' into Spanish.", r"\bgato\b"),
        ("Translate 'good morning' into French.", r"\bbonjour\b"),
        ("How do you say 'thank you' in German?", r"\bdanke\b"),
        ("What is the plural of 'child'?", r"\bchildren\b"),
        ("What is the past tense of 'go'?", r"\bwent\b"),
        ("Which animal barks, a dog or a cat?", r"\bdogs?\b"),
        ("Write a Python function that adds two numbers.", r"def \w+\(.*return"),
        ("Write a Python loop that prints the numbers from 1 to 5.", r"for \w+ in range\(1, 6\)"),
        ("Reply with the single word yes.", r"^\W*yes\b"),
        ("Write the alphabet's first five letters.", r"a\W*b\W*c\W*d\W*e"),
        (
            "The meeting is on Tuesday at 3 pm in room 12. On which day is the meeting?",
            r"\bTuesday\b",
        ),
    )
)
