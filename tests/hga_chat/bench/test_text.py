import pytest

from hga_chat.bench.text import cut, depths, make_needles, plant, standard_text

TEXT = "".join(f"line {number}\n" for number in range(10))


def test_facts_are_inserted_between_lines_at_their_places():
    planted = plant(TEXT, ["last", "first", "middle"], [1.0, 0.0, 0.5]).splitlines()
    assert [planted.index(fact) for fact in ("first", "middle", "last")] == [0, 6, 12]
    assert [line for line in planted if line.startswith("line")] == TEXT.splitlines()


def test_depths_span_the_whole_text():
    assert depths(5) == [0, 0.25, 0.5, 0.75, 1]
    assert depths(1) == [0.5]
    assert depths(0) == []


def encode(text):
    return list(text.encode())


def decode(token_ids):
    return bytes(token_ids).decode()


@pytest.mark.parametrize("tokens", [30, 47, 60])
def test_a_text_is_cut_to_length_with_every_fact_intact(tokens):
    found = decode(cut(encode, decode, TEXT, ["a fact", "another"], [0.2, 0.9], tokens))
    assert tokens - 8 < len(found) <= tokens
    assert "a fact\n" in found
    assert "another\n" in found


@pytest.mark.parametrize("tokens", [10, 200])
def test_a_text_that_is_too_short_for_the_facts_is_refused(tokens):
    with pytest.raises(ValueError, match=f"{tokens} tokens, 15 of them planted, are needed"):
        cut(encode, decode, TEXT, ["a fact", "another"], [0, 1], tokens)


def test_needles_are_distinct_and_reproducible():
    needles = make_needles(20, 3)
    assert len({needle.question for needle in needles}) == 20
    assert all(needle.answer in needle.fact for needle in needles)
    assert needles == make_needles(20, 3) != make_needles(20, 4)
    with pytest.raises(ValueError, match="needles can be planted"):
        make_needles(1000, 0)


def test_the_standard_text_is_code():
    assert "class Future" in standard_text()
