"""A session that was saved, and what it would have said had it never been."""

from pathlib import Path

import pytest

from hga_engine.engine import Engine
from tests.support.tiny_engine import ask, make_engine, random_tokens, read

BUDGETS = [pytest.param(None, id="in memory"), pytest.param(3 * 10 * 1024, id="partly on disk")]
"""For `LLAMA`: none, and ten pages of 1024 bytes a layer."""


def grow(engine: Engine) -> Engine:
    """A document of 75 tokens, a question of 9 and 6 tokens of answer, the last one pending."""
    read(engine, random_tokens(75))
    assert len(ask(engine, random_tokens(9, seed=1), 6).tokens) == 6
    return engine


def saved(folder: Path, budget: int | None = None) -> list[int]:
    """Save such a session in a folder; its tokens."""
    engine = grow(make_engine(saved_dir=folder, host_budget_bytes=budget))
    engine.save()
    engine.close()
    return engine.token_ids


def answers(engine: Engine) -> list[list[int]]:
    """What a session says next: after a question, and after more text and another question."""
    said = [ask(engine, random_tokens(11, seed=2), 5).tokens]
    read(engine, random_tokens(21, seed=3))
    return [*said, ask(engine, random_tokens(3, seed=4), 5).tokens, engine.token_ids]
