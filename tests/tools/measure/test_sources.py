from tools.measure.sources import Pair, as_text, report_of


def pair(rank: int | None) -> Pair:
    return Pair("q", "a", {"sources": rank, "keywords": None}, 0.1, 32.0, None, None)


def test_sources_named_for_wrong_answers_and_unrelated_questions_are_counted_apart():
    pairs = [pair(0), pair(2), pair(None), pair(0)]
    report = report_of(pairs, 8, unrelated=[True, False], wrong=[True, False, False, False])
    assert report["first"]["sources"] == 0.5
    assert report["first_three"]["sources"] == 0.75
    assert report["unrelated_with_sources"] == 0.5
    assert report["wrong_with_sources"] == 0.25
    assert "25.0% of wrong ones" in as_text(report)


def test_without_wrong_answers_no_source_is_named_for_one():
    assert report_of([pair(0)], 1, unrelated=[], wrong=[])["wrong_with_sources"] == 0
