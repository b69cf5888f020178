"""The engine and the fake that stands in for it keep the same promises."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from hga_engine.config import CacheConfig, EngineConfig, SamplingParams
from hga_engine.errors import ContextFullError
from hga_engine.events import Event, Finished, PrefillProgress, TextDelta
from hga_engine.protocol import EngineProtocol
from tests.support.scripted import ScriptedEngine
from tests.support.tiny_engine import make_engine, random_tokens

pytestmark = pytest.mark.usefixtures("single_thread")

CONTEXT = 256
TEXT, PROMPT = random_tokens(60), random_tokens(7, seed=1)
SAMPLING = SamplingParams(max_new_tokens=4, ignore_end=True)
Make = Callable[[Path | None], EngineProtocol]


def tiny(folder: Path | None = None) -> EngineProtocol:
    return make_engine(context=CONTEXT, slice_tokens=16, saved_dir=folder)


def scripted(folder: Path | None = None) -> EngineProtocol:
    engine = ScriptedEngine(["one two three four five six"] * 3, context=CONTEXT)
    return engine.open(EngineConfig(cache=CacheConfig(CONTEXT, saved_dir=folder)))


@pytest.fixture(params=[tiny, scripted])
def make(request: pytest.FixtureRequest) -> Make:
    return request.param


def filled(make: Make, folder: Path | None = None) -> EngineProtocol:
    engine = make(folder)
    list(engine.prefill(TEXT))
    return engine


def test_prefill_appends_the_text_and_reports_up_to_the_end(make: Make) -> None:
    engine = make(None)
    steps = list(engine.prefill(TEXT))
    assert engine.token_ids == TEXT
    assert engine.num_tokens == len(TEXT)
    assert [step.done for step in steps] == list(range(1, len(steps) + 1))
    assert steps[-1].fraction == 1
    assert {step.tokens for step in steps} == {len(TEXT)}


def test_prefill_of_nothing_reports_nothing(make: Make) -> None:
    assert list(make(None).prefill([])) == []


def test_a_prefill_that_is_cancelled_leaves_the_session_as_it_was(make: Make) -> None:
    engine, cancel = filled(make), threading.Event()
    for step in engine.prefill(PROMPT * 4, cancel):
        assert step.done == 1
        cancel.set()
    assert engine.token_ids == TEXT


def test_a_prefill_that_is_closed_leaves_the_session_as_it_was(make: Make) -> None:
    engine = filled(make)
    steps = engine.prefill(PROMPT * 4)
    next(steps)
    steps.close()
    assert engine.token_ids == TEXT


def test_what_does_not_fit_is_refused_and_changes_nothing(make: Make) -> None:
    engine = filled(make)
    room = CONTEXT - len(TEXT)
    with pytest.raises(ContextFullError):
        list(engine.prefill([1] * (room + 1)))
    # An answer takes at least one more token.
    with pytest.raises(ContextFullError):
        list(engine.answer([1] * room, SAMPLING))
    assert engine.token_ids == TEXT


def test_an_answer_reports_prompt_tokens_and_end_in_this_order(make: Make) -> None:
    engine = filled(make)
    events = list(engine.answer(PROMPT, SAMPLING))
    kinds: list[type[Event]] = [type(event) for event in events]
    deltas = [event for event in events if isinstance(event, TextDelta)]
    progress = kinds.count(PrefillProgress)
    assert progress > 0
    assert kinds == [PrefillProgress] * progress + [TextDelta] * 4 + [Finished]
    finished = events[-1]
    assert isinstance(finished, Finished)
    assert finished.reason == "length"
    assert (finished.prompt_tokens, finished.completion_tokens) == (len(PROMPT), 4)
    assert engine.token_ids == [*TEXT, *PROMPT, *(delta.token_id for delta in deltas)]
    positions = [delta.trace.position for delta in deltas]
    assert positions == list(range(positions[0], positions[0] + 4))


def test_a_cancelled_answer_keeps_what_was_generated(make: Make) -> None:
    engine, cancel = filled(make), threading.Event()
    said = []
    for event in engine.answer(PROMPT, SAMPLING, cancel):
        if isinstance(event, TextDelta):
            said.append(event.token_id)
            if len(said) == 2:
                cancel.set()
    assert isinstance(event, Finished)
    assert (event.reason, event.completion_tokens) == ("cancelled", 2)
    assert engine.token_ids == [*TEXT, *PROMPT, *said]


def test_an_answer_that_is_cancelled_during_its_prompt_leaves_the_session(make: Make) -> None:
    engine, cancel = filled(make), threading.Event()
    cancel.set()
    events = list(engine.answer(PROMPT, SAMPLING, cancel))
    assert isinstance(events[-1], Finished)
    assert events[-1].reason == "cancelled"
    assert not any(isinstance(event, TextDelta) for event in events)
    assert engine.token_ids == TEXT


def test_logits_append_the_text_and_cover_each_of_its_tokens(make: Make) -> None:
    engine = filled(make)
    logits = list(engine.logits(PROMPT))
    assert sum(len(part) for part in logits) == len(PROMPT)
    assert engine.token_ids == [*TEXT, *PROMPT]


def test_logits_of_a_text_that_does_not_fit_change_nothing(make: Make) -> None:
    engine = filled(make)
    with pytest.raises(ContextFullError):
        list(engine.logits([1] * (CONTEXT - len(TEXT) + 1)))
    assert engine.token_ids == TEXT


def test_truncate_cuts_and_never_lengthens(make: Make) -> None:
    engine = filled(make)
    engine.truncate(100)
    assert engine.token_ids == TEXT
    engine.truncate(33)
    assert engine.token_ids == TEXT[:33]


def test_a_saved_session_is_there_when_it_is_opened_again(make: Make, tmp_path: Path) -> None:
    engine = filled(make, tmp_path / "session")
    list(engine.answer(PROMPT, SAMPLING))
    tokens = engine.token_ids
    engine.save()
    assert engine.token_ids == tokens
    engine.close()
    assert make(tmp_path / "session").token_ids == tokens


def test_reports_change_nothing(make: Make) -> None:
    engine = filled(make)
    list(engine.answer(PROMPT, SAMPLING))
    tokens = engine.token_ids
    assert engine.layer_mass().ndim == 2
    assert engine.memory().kv_host_bytes > 0
    assert 0 <= engine.page_hit_rate() <= 1
    engine.check()
    assert engine.token_ids == tokens
