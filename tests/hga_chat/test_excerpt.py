import pytest

from hga_chat.excerpt import excerpt

LASER = (
    "The laser of the monitor is visible to pilots. It may be fired only after the flight control "
    "centre has agreed by telephone, and two spotters must stand outside, one looking east and one "
    "west. The code word for an immediate stop is lantern.\n\n"
    "Predictions of bright satellites are loaded into the scheduler at noon."
)


def test_the_sentence_with_the_words_of_the_answer_is_shown_whole():
    shown = excerpt(LASER, "The code word for an immediate stop is **lantern**.", 60)
    assert shown == "… The code word for an immediate stop is lantern. …"


def test_surrounding_sentences_are_shown_as_far_as_they_fit():
    shown = excerpt(LASER, "lantern", 130)
    assert shown.startswith("… The code word for an immediate stop is lantern. Predictions of")
    assert shown.endswith("at noon.")
    assert excerpt("One is so. Two is not.", "Two") == "One is so. Two is not."


def test_words_in_many_sentences_count_less():
    text = "the the sea is the sea.\nthe colour is teal.\nthe sea is calm."
    assert excerpt(text, "the colour", 20) == "… the colour is teal. …"


@pytest.mark.parametrize("answer", ["nothing of it", ""])
def test_without_shared_words_the_beginning_is_shown(answer):
    assert excerpt("Calm seas. Wild seas.", answer, 12) == "Calm seas. …"
    assert excerpt("", answer) == ""


def test_lines_of_code_are_not_cut_at_the_beginning():
    text = "def one():\n    return 1\n\ndef two():\n    return 2\n"
    assert excerpt(text, "It is `two`.", 24) == "… def two(): return 2"


@pytest.mark.parametrize("at", [0, 40, 99])
def test_a_long_sentence_is_cut_around_the_answer(at):
    words = [f"word{n}" for n in range(100)]
    words[at] = "lantern"
    shown = excerpt(" ".join(words), "lantern", 80)
    assert "lantern" in shown
    assert len(shown) <= 84
    assert shown.startswith("… ") is (at > 10)
    assert shown.endswith(" …") is (at < 99)
