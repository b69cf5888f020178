import re
from collections import Counter
from itertools import product

import pytest

from hga_chat.bench.tasks import FAMILIES, make_tasks, single_token_words

WORDS = ["".join(letters) * 2 for letters in product("abcdefghij", repeat=3)]


def planted_for(tasks, *, holding):
    return [fact for fact in tasks.facts if holding in fact]


@pytest.fixture(scope="module")
def tasks():
    return make_tasks(WORDS, 3, 400, seed=1)


def test_there_are_count_tasks_of_each_family_and_one_of_each_list(tasks):
    assert Counter(task.family for task in tasks.tasks) == dict(
        zip(FAMILIES, (3, 3, 3, 1, 1), strict=True)
    )
    assert len(tasks.facts) == len(tasks.places)
    assert all(0 <= place <= 1 for place in tasks.places)
    assert make_tasks(WORDS, 0, 400, 1).facts == ()


def test_right_answers_contain_the_expected_words(tasks):
    for task in tasks.tasks:
        assert all(answer in task.text for answer in task.answers)


def test_keys_and_values_are_in_the_facts(tasks):
    for task in tasks.tasks:
        if task.family in ("many keys", "many values"):
            key = re.search(r"called (\w+)", task.question).group(1)
            facts = planted_for(tasks, holding=f" {key} ")
            assert len(facts) == len(task.answers)
            for fact, answer in zip(facts, task.answers, strict=True):
                assert answer in fact
    keys = planted_for(tasks, holding="locker")
    assert len({fact.split()[-1] for fact in keys}) == 8


def test_variables_lead_to_a_number_in_reverse_order(tasks):
    for task in tasks.tasks:
        if task.family == "variables":
            facts = {
                name: (value, place)
                for fact, place in zip(tasks.facts, tasks.places, strict=True)
                for name, value in re.findall(r"variable (\w+) is (\w+)", fact)
            }
            name = re.search(r"variable (\w+)", task.question).group(1)
            places = []
            for answer in task.answers:
                value, place = facts[name]
                assert value == answer
                places.append(place)
                name = value
            assert name.isdigit()
            assert places == sorted(places, reverse=True)


@pytest.mark.parametrize(
    ("family", "kind"), [("common words", "common"), ("frequent words", "coded")]
)
def test_the_expected_words_are_the_most_frequent_of_the_list(tasks, family, kind):
    (fact,) = planted_for(tasks, holding=f"List of {kind} words: ")
    counts = Counter(fact.partition(": ")[2].split())
    (task,) = (task for task in tasks.tasks if task.family == family)
    least = min(counts[word] for word in task.answers)
    assert least > max(counts[word] for word in counts if word not in task.answers) * 0.99
    assert counts.total() == 400


def test_a_seed_gives_the_same_tasks():
    assert make_tasks(WORDS, 2, 100, 5) == make_tasks(WORDS, 2, 100, 5)
    assert make_tasks(WORDS, 2, 100, 5) != make_tasks(WORDS, 2, 100, 6)


def test_words_are_single_tokens_with_a_leading_space():
    vocabulary = [b" " + word.encode() for word in WORDS[:300]]
    vocabulary += [b" Upper", b"nblank", b" two words", b" nine99", b"\xff", b" abc"]
    found = single_token_words(vocabulary.__getitem__, len(vocabulary))
    assert found == sorted(WORDS[:300])
    with pytest.raises(ValueError, match="199 whole words; 200 are needed"):
        single_token_words(vocabulary.__getitem__, 199)


def test_words_of_questions_and_answers_are_not_names():
    tasks = make_tasks(WORDS, 3, 400, seed=1)
    texts = [*tasks.facts, *(f"{task.question} {task.text}" for task in tasks.tasks)]
    said = set(re.findall(r"\b[a-z]{4,8}\b", " ".join(texts))) - set(WORDS)
    assert {"value", "door", "list", "that"} <= said
    again = make_tasks([*sorted(said), *WORDS[:200]], 3, 400, seed=1)
    names = {word for fact in again.facts if "List of" in fact for word in fact.split()[5:]}
    names |= {word for task in again.tasks for word in task.answers}
    names |= set(re.findall(r"(?:called|the variable) (\w+)", " ".join(again.facts)))
    assert len(names) > 40
    assert not names & said
