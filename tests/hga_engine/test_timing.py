import itertools
from dataclasses import replace

import pytest

from hga_engine.timing import prefill_work
from tests.support.scripted import MODEL


def test_the_work_of_a_short_text_is_its_tokens():
    model = replace(MODEL, hidden_size=2048, intermediate_size=8192)
    assert prefill_work(model, 0) == 0
    assert prefill_work(model, 100) == 100


def test_later_tokens_are_more_work_in_proportion_to_their_position():
    work = [prefill_work(MODEL, 10_000 * n) for n in range(5)]
    parts = [after - before for before, after in itertools.pairwise(work)]
    growth = [after - before for before, after in itertools.pairwise(parts)]
    assert growth[0] > 0
    assert growth == pytest.approx([growth[0]] * 3, abs=2)


def test_positions_cost_less_where_each_token_has_more_weights():
    wide = replace(MODEL, intermediate_size=1600)
    experts = replace(MODEL, num_experts=8, experts_per_token=2, expert_intermediate_size=800)
    assert prefill_work(wide, 10_000) == prefill_work(experts, 10_000)
    assert 10_000 < prefill_work(wide, 10_000) < prefill_work(MODEL, 10_000)
