"""Load the sample handbook and the sources of an installed package, and ask about both.

The embedded model is fetched once. Each question starts from a session that holds the documents
and nothing else. Answers are checked for phrases from the documents.

    python -m tools.demo
"""

import json
import os
import sys
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from hga_chat.conversation.answer import Answer
from hga_chat.conversation.conversation import Conversation
from hga_chat.display import displayable
from hga_chat.documents import lay_out, load_documents
from hga_chat.models import pull_model
from hga_engine.config import EngineConfig, SamplingParams
from hga_engine.opening import LoadedModel, open_engine, prepare_model

SAMPLES = Path(__file__).parents[1] / "assets" / "samples"
HANDBOOK_QUESTIONS = 6
LEAST_RIGHT = 0.75
"""The model is small, and the package changes with its releases."""
PACKAGE = "markdown_it"
PACKAGE_QUESTIONS = (
    ("Which class does StateCore inherit from?", "StateBase"),
    ("Which class does RuleOptionsType inherit from?", "TypedDict"),
)


def say(text: str) -> None:
    """Print a line at once, safe for a terminal."""
    print(displayable(text), flush=True)


def ask_about(model: LoadedModel, path: Path, questions: Sequence[tuple[str, str]]) -> int:
    """Load a path, ask about it and return how many answers contain the expected phrase."""
    layout = lay_out(load_documents([os.path.relpath(path)]), model.tokenizer)
    conversation = Conversation(open_engine(model, EngineConfig()), layout)
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
            f"{finished.decode_tokens_per_s:.0f} tokens/s over {finished.sparsity:.1%} of the text"
        )
        conversation.rewind()
    conversation.engine.close()
    return right


def main() -> int:
    """Run the demonstration; return 0 if most answers are right."""
    began = time.perf_counter()
    model = prepare_model(pull_model("smollm2-64k", say))
    samples = json.loads((SAMPLES / "questions.json").read_text(encoding="utf-8"))
    handbook = [(q["question"], q["answer"]) for q in samples if q["demo"]][:HANDBOOK_QUESTIONS]
    spec = find_spec(PACKAGE)
    assert spec is not None
    assert spec.submodule_search_locations is not None
    package = Path(spec.submodule_search_locations[0])
    right = ask_about(model, SAMPLES / "handbook.pdf", handbook)
    say("")
    right += ask_about(model, package, PACKAGE_QUESTIONS)
    asked = len(handbook) + len(PACKAGE_QUESTIONS)
    say(f"\n{right} of {asked} answers right, in {time.perf_counter() - began:.0f} s.")
    say("Try it yourself: .venv/bin/hga-chat ingest assets/samples/handbook.pdf")
    return 0 if right >= LEAST_RIGHT * asked else 1


if __name__ == "__main__":
    sys.exit(main())
