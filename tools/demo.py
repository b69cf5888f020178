"""Load the sample handbook and a small repository, and ask about both.

The default model is fetched once. Each question starts from a session that holds the documents and
nothing else. Answers are checked for phrases from the documents. With ``--long`` the repository is
one of 60,000 tokens, beyond the model's native context.

    python -m tools.demo [--long]
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from hga_chat.conversation.answer import Answer
from hga_chat.conversation.conversation import Conversation
from hga_chat.display import displayable
from hga_chat.documents import lay_out, load_documents
from hga_chat.models import default_model, pull_model
from hga_engine.config import CacheConfig, EngineConfig, SamplingParams
from hga_engine.opening import LoadedModel, open_engine, prepare_model

SAMPLES = Path(__file__).parents[1] / "assets" / "samples"
HANDBOOK_QUESTIONS = 6
LEAST_RIGHT = 0.75
"""The packages change with their releases."""


@dataclass(frozen=True)
class Repository:
    """An installed package, and questions about its sources with phrases of right answers."""

    package: str
    questions: tuple[tuple[str, str], ...]
    context: int


SMALL = Repository(
    "mdurl",
    (
        ("What is the value of HOSTNAME_MAX_LEN?", "255"),
        ("Which class does URL inherit from?", "NamedTuple"),
        ("Which function turns a parsed URL back into a string?", "format"),
    ),
    32_768,
)
LARGE = Repository(
    "markdown_it",
    (
        ("Which class does StateCore inherit from?", "StateBase"),
        ("Which class does RuleOptionsType inherit from?", "TypedDict"),
    ),
    65_536,
)


def say(text: str) -> None:
    """Print a line at once, safe for a terminal."""
    print(displayable(text), flush=True)


def progress() -> Callable[[str, float], None]:
    """Return a function that draws progress where somebody watches."""

    def draw(activity: str, share: float) -> None:
        if sys.stdout.isatty():
            print(f"\r{activity}: {share:4.0%}", end="\n" if share >= 1 else "", flush=True)

    return draw


def ask_about(
    model: LoadedModel, path: Path, questions: Sequence[tuple[str, str]], context: int
) -> int:
    """Load a path, ask about it and return how many answers contain the expected phrase."""
    layout = lay_out(load_documents([os.path.relpath(path)]), model.tokenizer)
    config = EngineConfig(cache=CacheConfig(context))
    conversation = Conversation(open_engine(model, config), layout)
    began = time.perf_counter()
    for step in conversation.prefill():
        if sys.stdout.isatty():
            end = "\n" if step.done == step.total else ""
            print(f"\rReading {path.name}: {step.fraction:4.0%}", end=end, flush=True)
    seconds = time.perf_counter() - began
    tokens = len(layout.token_ids)
    rate = tokens / seconds
    say(f"{path.name}: {tokens:,} tokens read in {seconds:.1f} s ({rate:.0f} a second)")
    right = 0
    for question, phrase in questions:
        sampling = SamplingParams(max_new_tokens=64)
        answer = next(e for e in conversation.ask(question, sampling) if isinstance(e, Answer))
        stands = phrase.lower() in answer.text.lower()
        right += stands
        say(f"\n  {question}\n  > {answer.text.strip()}{'' if stands else f'   (wrong: {phrase})'}")
        for source in answer.sources[:2]:
            say(f"      read {source.score:4.0%}  {source.place}")
        finished = answer.finished
        say(
            f"      first token {finished.ttft_s:.2f} s, "
            f"{finished.decode_tokens_per_s:.0f} tokens/s, "
            f"attending to {finished.sparsity:.1%} of the text"
        )
        conversation.rewind()
    conversation.engine.close()
    return right


def main() -> int:
    """Run the demonstration; return 0 if most answers are right."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--long", action="store_true", help="read a repository of 60,000 tokens")
    repository = LARGE if parser.parse_args().long else SMALL
    began = time.perf_counter()
    name = default_model()
    model = prepare_model(pull_model(name, say, progress()))
    say(f"Model: {name}, ready after {time.perf_counter() - began:.0f} s.")
    samples = json.loads((SAMPLES / "questions.json").read_text(encoding="utf-8"))
    handbook = [(q["question"], q["answer"]) for q in samples if q["demo"]][:HANDBOOK_QUESTIONS]
    spec = find_spec(repository.package)
    assert spec is not None
    assert spec.submodule_search_locations is not None
    package = Path(spec.submodule_search_locations[0])
    right = ask_about(model, SAMPLES / "handbook.pdf", handbook, SMALL.context)
    say("")
    right += ask_about(model, package, repository.questions, repository.context)
    asked = len(handbook) + len(repository.questions)
    say(f"\n{right} of {asked} answers right, in {time.perf_counter() - began:.0f} s.")
    say("Try it yourself: .venv/bin/hga-chat ingest assets/samples/handbook.pdf")
    return 0 if right >= LEAST_RIGHT * asked else 1


if __name__ == "__main__":
    sys.exit(main())
