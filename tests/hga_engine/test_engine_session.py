"""A session through cancellation, truncation, errors and the end of its room."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from hga_engine.config import LEAST_BUDGET, Routing, SamplingParams
from hga_engine.engine import Engine
from hga_engine.errors import ContextFullError, KVStoreError
from hga_engine.events import PrefillProgress, TextDelta
from hga_engine.kv_store.tiered import TieredKVStore
from hga_engine.saved_state import read_info
from tests.support.tiny_engine import (
    LLAMA,
    MOE,
    PARTIAL,
    Answer,
    ask,
    make_engine,
    random_tokens,
    read,
)

pytestmark = pytest.mark.usefixtures("single_thread")

DOCUMENT, QUESTION = random_tokens(75), random_tokens(50, seed=1)
ROUTERS = [
    pytest.param(PARTIAL, id="hga"),
    pytest.param(replace(PARTIAL, kind="paper"), id="paper"),
]
BUDGETS = [pytest.param(None, id="in memory"), pytest.param(3 * 10 * 1024, id="partly on disk")]


def with_a_turn(router: Routing = PARTIAL, host_budget_bytes: int | None = None) -> Engine:
    """A document and an answer, whose last token is not computed yet."""
    engine = make_engine(router=router, slice_tokens=16, host_budget_bytes=host_budget_bytes)
    read(engine, DOCUMENT)
    assert len(ask(engine, QUESTION[:9], 6).tokens) == 6
    assert engine.num_tokens == 75 + 9 + 6
    return engine


def goes_on_like(engine: Engine, other: Engine) -> bool:
    """Whether two sessions are the same: as long, and their next texts and answers equal."""
    assert engine.num_tokens == other.num_tokens
    said = []
    for session in (engine, other):
        answers = [ask(session, QUESTION[20:31], 4).tokens]
        read(session, DOCUMENT[:21])
        answers.append(ask(session, QUESTION[31:34], 4).tokens)
        said.append(answers)
    assert engine.num_tokens == other.num_tokens
    return said[0] == said[1]


# Cancelling


@pytest.mark.parametrize("router", ROUTERS)
@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("step", [1, 5, 11])
def test_a_cancelled_reading_leaves_the_session_as_it_was(
    router: Routing, budget: int | None, step: int
) -> None:
    engine, cancel, steps = with_a_turn(router, budget), threading.Event(), 0
    for progress in engine.prefill(random_tokens(60, seed=9), cancel):
        steps = progress.done
        # 61 tokens with the one before; slices of 7, 16, 16, 16 and 6 through three layers.
        assert progress.total == 15
        if steps == step:
            cancel.set()
    assert steps == step
    assert goes_on_like(engine, with_a_turn(router, budget))


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("step", [1, 8])
def test_an_abandoned_reading_leaves_the_session_as_it_was(budget: int | None, step: int) -> None:
    engine = with_a_turn(host_budget_bytes=budget)
    steps = engine.prefill(random_tokens(60, seed=9))
    for _ in range(step):
        next(steps)
    assert isinstance(steps, Iterator)
    steps.close()
    assert goes_on_like(engine, with_a_turn())


@pytest.mark.parametrize("router", ROUTERS)
@pytest.mark.parametrize("budget", BUDGETS)
def test_a_text_in_parts_of_whole_slices_is_the_same_session(
    router: Routing, budget: int | None
) -> None:
    text = random_tokens(150, seed=4)
    whole = make_engine(router=router, slice_tokens=16, host_budget_bytes=budget)
    read(whole, text)
    parts = make_engine(router=router, slice_tokens=16, host_budget_bytes=budget)
    for first, last in [(0, 32), (32, 64), (64, 128), (128, 150)]:
        read(parts, text[first:last])
    (expected,), (found,) = whole.logits(QUESTION[:9]), parts.logits(QUESTION[:9])
    assert torch.equal(found, expected)


def test_a_reading_cancelled_before_it_began_reads_nothing() -> None:
    engine, cancel = with_a_turn(), threading.Event()
    cancel.set()
    assert list(engine.prefill(DOCUMENT, cancel)) == []
    assert goes_on_like(engine, with_a_turn())


@pytest.mark.parametrize("router", ROUTERS)
@pytest.mark.parametrize("count", [1, 2, 6])
def test_a_cancelled_answer_keeps_its_part(router: Routing, count: int) -> None:
    engine, cancel = with_a_turn(router), threading.Event()
    events = []
    for event in engine.answer(QUESTION[9:20], SamplingParams(max_new_tokens=20), cancel):
        events.append(event)
        if sum(isinstance(e, TextDelta) for e in events) == count:
            cancel.set()
    answer = Answer(events)
    assert answer.finished.reason == "cancelled"
    assert answer.finished.completion_tokens == len(answer.tokens) == count
    assert answer.tokens == ask(with_a_turn(router), QUESTION[9:20], 20).tokens[:count]
    # The same session by the decode rule, with what was said given as text.
    given = with_a_turn(router)
    for _ in given.logits(QUESTION[9:20] + answer.tokens):
        pass
    assert goes_on_like(engine, given)


@pytest.mark.parametrize("slices", [1, 2, 3])
def test_a_prompt_cancelled_while_it_is_read_leaves_the_session_as_it_was(slices: int) -> None:
    engine, cancel = with_a_turn(), threading.Event()
    events = []
    for event in engine.answer(QUESTION, SamplingParams(), cancel):
        events.append(event)
        # 51 tokens with the one before, the last of them decoded: slices of 7, 16, 16 and 11.
        if isinstance(event, PrefillProgress) and event.done == slices:
            assert event.total == 4
            cancel.set()
    answer = Answer(events)
    assert len(answer.progress) == slices
    assert answer.deltas == []
    assert answer.finished.reason == "cancelled"
    assert answer.finished.completion_tokens == 0
    assert goes_on_like(engine, with_a_turn())


def test_cancelling_as_the_prompt_ends_says_nothing() -> None:
    engine, cancel = with_a_turn(), threading.Event()
    events = []
    for event in engine.answer(QUESTION, SamplingParams(max_new_tokens=5), cancel):
        events.append(event)
        if isinstance(event, PrefillProgress) and event.done == event.total:
            cancel.set()
    assert Answer(events).tokens == []
    assert Answer(events).finished.reason == "cancelled"
    assert goes_on_like(engine, with_a_turn())


def test_an_answer_abandoned_while_its_prompt_is_read_leaves_the_session_as_it_was() -> None:
    engine = with_a_turn()
    events = engine.answer(QUESTION, SamplingParams())
    next(iter(events))
    events.close()  # type: ignore[attr-defined]
    assert goes_on_like(engine, with_a_turn())


def test_an_abandoned_answer_keeps_its_part() -> None:
    engine = with_a_turn()
    events = engine.answer(QUESTION[9:20], SamplingParams())
    said: list[int] = []
    for event in events:
        if isinstance(event, TextDelta):
            said.append(event.token_id)
        if len(said) == 3:
            break
    events.close()  # type: ignore[attr-defined]
    other = with_a_turn()
    for _ in other.logits(QUESTION[9:20] + said):
        pass
    assert goes_on_like(engine, other)


# Truncating


@pytest.mark.parametrize("router", ROUTERS)
@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("length", [0, 1, 40, 76, 83])
def test_a_truncated_session_goes_on_as_if_the_rest_had_never_been(
    router: Routing, budget: int | None, length: int
) -> None:
    engine = make_engine(router=router, host_budget_bytes=budget)
    other = make_engine(router=router, host_budget_bytes=budget)
    for session, end in ((engine, 84), (other, length)):
        # By the decode rule: a chunk that is cut may have been read with what followed in it.
        for _ in session.logits((DOCUMENT + QUESTION[:9])[:end]) if end else ():
            pass
    engine.truncate(length)
    assert goes_on_like(engine, other)


@pytest.mark.parametrize("length", [84, 87, 89, 90])
def test_an_answer_can_be_cut_within(length: int) -> None:
    engine = with_a_turn()
    said = ask(make_engine_after_the_question(), QUESTION[8:9], 6).tokens
    engine.truncate(length)
    other = make_engine_after_the_question()
    for _ in other.logits(QUESTION[8:9] + said[: length - 84]):
        pass
    assert goes_on_like(engine, other)


def make_engine_after_the_question() -> Engine:
    engine = make_engine(slice_tokens=16)
    read(engine, DOCUMENT)
    for _ in engine.logits(QUESTION[:8]):
        pass
    return engine


def test_truncating_behind_the_end_changes_nothing() -> None:
    engine = with_a_turn()
    engine.truncate(90)
    engine.truncate(1000)
    assert goes_on_like(engine, with_a_turn())


# Room


def test_a_text_that_does_not_fit_leaves_the_session_as_it_was() -> None:
    engine = with_a_turn()
    with pytest.raises(ContextFullError, match=r"168 more tokens.*90 of 256"):
        next(engine.prefill(random_tokens(168)))
    with pytest.raises(ContextFullError, match="more tokens do not fit"):
        next(engine.answer(random_tokens(168), SamplingParams()))
    with pytest.raises(ContextFullError, match="168"):
        next(engine.logits(random_tokens(168)))
    assert goes_on_like(engine, with_a_turn())


def test_a_text_may_fill_the_session() -> None:
    engine = with_a_turn()
    read(engine, random_tokens(166))
    assert engine.num_tokens == 256
    engine.truncate(90)
    assert engine.num_tokens == 90


@pytest.mark.parametrize("room", [1, 2, 5])
def test_an_answer_ends_with_the_room(room: int) -> None:
    engine = make_engine(context=84 + room)
    answer = ask(engine, DOCUMENT + QUESTION[:9], 20)
    assert answer.finished.reason == "length"
    assert answer.tokens == ask(make_engine(), DOCUMENT + QUESTION[:9], 20).tokens[:room]
    assert engine.num_tokens == 84 + room
    with pytest.raises(ContextFullError):
        ask(engine, [1])


def test_a_prompt_that_leaves_no_room_for_an_answer_does_not_fit() -> None:
    engine = make_engine(context=84)
    with pytest.raises(ContextFullError):
        ask(engine, DOCUMENT + QUESTION[:9])
    assert engine.num_tokens == 0


# Errors of the store


def fail_at(call: int, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Appending fails at the given call, as on a full disk; the result heals it."""
    append, calls = TieredKVStore.append, 0

    def failing(store: TieredKVStore, *args: object) -> None:
        nonlocal calls
        calls += 1
        if calls == call:
            raise KVStoreError("The disk is full.")
        append(store, *args)

    monkeypatch.setattr(TieredKVStore, "append", failing)
    return lambda: monkeypatch.setattr(TieredKVStore, "append", append)


@pytest.mark.parametrize("call", [1, 2, 7, 15])
def test_a_reading_that_fails_leaves_the_session_as_it_was(
    call: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = with_a_turn()
    heal = fail_at(call, monkeypatch)
    with pytest.raises(KVStoreError, match="full"):
        read(engine, random_tokens(60, seed=9))
    heal()
    assert goes_on_like(engine, with_a_turn())


@pytest.mark.parametrize("call", [1, 2, 5, 12])
def test_a_prompt_that_fails_leaves_the_session_as_it_was(
    call: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = with_a_turn()
    heal = fail_at(call, monkeypatch)
    with pytest.raises(KVStoreError, match="full"):
        ask(engine, QUESTION)
    heal()
    assert goes_on_like(engine, with_a_turn())


@pytest.mark.parametrize("call", [19, 20, 21])
def test_an_answer_that_fails_keeps_its_part(call: int, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = with_a_turn()
    heal = fail_at(call, monkeypatch)
    # Four slices and a token through three layers are 15 calls; then three a token.
    with pytest.raises(KVStoreError, match="full"):
        ask(engine, QUESTION)
    heal()
    said = ask(with_a_turn(), QUESTION, 2).tokens
    other = with_a_turn()
    for _ in other.logits(QUESTION + said):
        pass
    assert goes_on_like(engine, other)


def test_sessions_of_one_model_are_apart() -> None:
    first, second = make_engine(MOE), make_engine(MOE)
    read(first, DOCUMENT)
    assert second.num_tokens == 0
    assert ask(second, QUESTION, 4).tokens == ask(make_engine(MOE), QUESTION, 4).tokens
    assert make_engine(LLAMA).num_tokens == 0


def test_another_budget_counts_from_the_next_token_on() -> None:
    question = random_tokens(9, seed=1)

    def said(engine: Engine) -> list[int]:
        return ask(engine, question, 12).tokens

    small, large = make_engine(), make_engine(router=replace(PARTIAL, decode_budget=99))
    changed = make_engine()
    for engine in (small, large, changed):
        read(engine, random_tokens(150))
    changed.set_budget(99 * PARTIAL.group_size)
    assert changed.config.routing == large.config.routing
    assert said(changed) == said(large) != said(small)
    changed.truncate(150)
    changed.set_budget(LEAST_BUDGET)
    assert ask(changed, question, 12).finished.sparsity < 1
    with pytest.raises(ValueError, match="at least 64 tokens"):
        changed.set_budget(10)


def test_a_session_of_another_budget_is_resumed(tmp_path: Path) -> None:
    engine = make_engine(saved_dir=tmp_path)
    read(engine, random_tokens(150))
    engine.set_budget(200)
    ask(engine, random_tokens(9), 5)
    engine.save()
    engine.close()
    info = read_info(tmp_path)
    assert info is not None
    assert info.routing == asdict(PARTIAL)
    again = make_engine(saved_dir=tmp_path)
    again.check()
    assert again.token_ids == engine.token_ids
