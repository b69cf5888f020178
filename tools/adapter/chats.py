"""Short conversations of the base model, which the adapted model has to keep."""

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from hga_engine.config import CacheConfig, EngineConfig, SamplingParams
from hga_engine.events import TextDelta
from hga_engine.model.files import ModelFiles

CONTEXT = 2_048
_THINGS = (
    *("a volcano", "a bicycle", "photosynthesis", "the moon", "a compiler", "gravity", "a glacier"),
    *("a library", "electricity", "a river delta", "a database", "the heart", "a telescope"),
    *("inflation", "a honeybee", "a thunderstorm", "a bridge", "the alphabet", "a violin", "yeast"),
)
_KINDS = (
    *("fruits", "countries in Europe", "musical instruments", "programming languages", "mammals"),
    *("kitchen tools", "ways to save water", "planets", "winter sports", "trees", "birds"),
    *("colors", "hobbies for a rainy day", "things found in a school", "board games"),
    *("vegetables", "metals"),
)
_SENTENCES = (
    "The ferry leaves at noon and comes back before dark.",
    "He doesn't like the new curtains in the kitchen.",
    "Our train was late because of the snow.",
    "She has been painting the fence since Monday.",
    "The results were surprising, but nobody complained.",
    "Please close the window before you leave the office.",
    "The old clock in the hall stopped on a Friday.",
    "They sell bread, cheese and honey at the corner shop.",
    "I forgot my umbrella and got wet on the way home.",
    "The committee will meet again at the end of the month.",
    "A small dog followed the children to the lake.",
    "Nobody knew who had written the letter.",
    "The engine makes a strange noise when it is cold.",
    "We planted tomatoes along the southern wall.",
    "The museum opens at ten and is closed on Tuesdays.",
)
_PASSAGES = (
    "The lighthouse was built in 1874 on a rock two miles from the harbour. Its first keeper, a "
    "retired sailor, lived there with his sister for nineteen years. In 1931 the lamp was "
    "converted to electricity, and since 1988 it has been run from the mainland.",
    "Bread dough rises because yeast turns sugar into carbon dioxide. The gas is held by gluten, a "
    "net of proteins that forms when flour is kneaded with water. In the oven the bubbles grow "
    "once more before the crust sets.",
    "The library lends books for three weeks. A book can be renewed twice unless somebody else has "
    "asked for it. Whoever returns a book late pays ten cents a day; children pay nothing.",
    "Version 2 of the tool reads its settings from a file in the home folder. Flags on the command "
    "line come before the file, and the file comes before the defaults. Unknown settings stop the "
    "tool with an error.",
    "Swifts spend most of their lives in the air. They eat, drink and even sleep on the wing, and "
    "land only to breed. In late summer they leave for Africa, often all in one night.",
    "The meeting began at nine. Mr. Hale said that the roof would cost more than planned. After "
    "some discussion it was agreed to ask two other firms, and to decide in March.",
)
_TASKS = (
    *("writes a list of numbers to a file", "counts the vowels in a string", "reverses a list"),
    *("checks whether a number is prime", "finds the largest number in a list"),
    *("adds two matrices", "removes duplicates from a list", "reads a CSV file"),
    "sorts words by length",
    *("converts Celsius to Fahrenheit", "merges two dictionaries", "computes the factorial of n"),
)
_TOPICS = (
    *("a walk in the forest", "the first day at school", "a lost key", "a robot that bakes bread"),
    *("a storm at sea", "an old piano", "a garden in spring", "a train at night", "a shy dragon"),
)
_HOW = (
    *("boil an egg", "learn a language", "plant a tree", "fix a flat tire", "write a short letter"),
    *("prepare for an interview", "clean a keyboard", "sleep better", "back up a computer"),
    *("make tea", "start a small garden", "read a map", "give a talk", "use version control"),
)
_OPINIONS = (
    *("cats or dogs", "tea or coffee", "the sea or the mountains", "books or films"),
    *("walking or cycling", "summer or winter", "cities or villages"),
)
_GREETINGS = (
    *("Hello!", "Hi, who are you?", "Good morning.", "Thanks for your help!", "What can you do?"),
    *("Can you help me with my homework?", "I feel a bit tired today.", "Tell me a joke."),
    *("Goodbye!", "What is your name?", "Are you a human?", "Do you speak French?"),
)
_LANGUAGES = ("French", "Spanish", "German", "Italian")


def prompts(count: int, seed: int = 0) -> list[str]:
    """Return distinct prompts of many kinds, shuffled."""
    draw = random.Random(seed)
    made = list(dict.fromkeys(_all(draw)))
    draw.shuffle(made)
    return made[:count]


def _all(draw: random.Random) -> Iterator[str]:
    yield from _GREETINGS
    for thing in _THINGS:
        yield f"What is {thing}?"
        yield f"Explain {thing} to a child in two sentences."
        yield f"Write one interesting fact about {thing}."
    for kind in _KINDS:
        yield f"List {draw.choice(('three', 'four', 'five', 'six'))} {kind}."
        yield f"Give me an example of {kind} and say why you chose it."
    for sentence in _SENTENCES:
        yield f"Rewrite this sentence in the future tense: {sentence}"
        yield f"Translate into {draw.choice(_LANGUAGES)}: {sentence}"
        yield f"How many words are in this sentence? {sentence}"
        yield f"Write this in capital letters: {sentence}"
        yield f"Make this sentence more polite: {sentence}"
    for passage in _PASSAGES:
        yield f"Summarize the text in one sentence.\n\n{passage}"
        yield f"{passage}\n\nWhat is this text about?"
        yield f"{passage}\n\nList the main points."
        yield f"Give this text a title:\n\n{passage}"
    for task in _TASKS:
        yield f"Write a Python function that {task}."
        yield f"Explain how a program {task}."
    for topic in _TOPICS:
        yield f"Write a short poem about {topic}."
        yield f"Tell me a short story about {topic}."
    for how in _HOW:
        yield f"How do I {how}?"
        yield f"Give me three tips: how to {how}."
    for pair in _OPINIONS:
        yield f"What is better, {pair}?"
    for _ in range(60):
        one, other = draw.randrange(2, 100), draw.randrange(2, 100)
        yield draw.choice(
            (
                f"What is {one} + {other}?",
                f"Calculate {one} times {other}.",
                f"Subtract {one} from {one + other}.",
                f"Which is larger, {one} or {other + 100}?",
                f"Is {one} an even number?",
            )
        )


def answer(gguf: Path, asked: list[str], max_new_tokens: int) -> Iterator[tuple[str, str]]:
    """Yield prompts with the base model's answers at temperature 0.7, by dense attention.

    Args:
        gguf: the base model.
        asked: the prompts.
        max_new_tokens: of each answer.

    Yields:
        Prompt and answer; those whose answer is cut short as well.
    """
    from hga_engine.opening import open_engine, prepare_model

    model = prepare_model(ModelFiles("base", None, gguf))
    config = EngineConfig("dense", cache=CacheConfig(context=CONTEXT))
    engine = open_engine(model, config)
    sampling = SamplingParams(max_new_tokens=max_new_tokens, temperature=0.7, top_p=0.95)
    for number, prompt in enumerate(asked):
        tokenizer = engine.tokenizer
        tokens = [*tokenizer.opening(None), *tokenizer.encode(prompt), *tokenizer.to_answer()]
        events = engine.answer(tokens, replace(sampling, seed=number))
        yield prompt, "".join(event.text for event in events if isinstance(event, TextDelta))
        engine.truncate(0)
    engine.close()
