"""Measure how often the sources of a right answer contain the passage that states it.

Loads the documents of assets/samples/passages.json one after another and asks every question about
each. For right answers, reports how often one of the first three sources overlaps the passage,
beside keyword search (BM25) and random passages of the same length; and how much hiding the passage
costs the answer, beside hiding a random one.

    python -m tools.measure.sources [--model MODEL] [--json] [NAME …]
"""

import argparse
import json
import math
import random
import re
import sys
import sysconfig
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hga_chat.conversation.answer import Answer
from hga_chat.conversation.conversation import Conversation
from hga_chat.conversation.verify import verify
from hga_chat.documents import DocumentTokens, lay_out, load_documents
from hga_chat.models import DEFAULT_MODEL, pull_model
from hga_chat.output import table
from hga_chat.sources import TRACE_BIN_TOKENS, Source
from hga_engine.config import CacheConfig, EngineConfig, SamplingParams
from hga_engine.opening import LoadedModel, open_engine, prepare_model

ROOT = Path(__file__).parents[2]
FOLDERS = {"repository": ROOT, "python": Path(sysconfig.get_paths()["stdlib"])}
SAMPLING = SamplingParams(max_new_tokens=40)
SHOWN = 3
DRAWS = 200
SATURATION, LENGTH_WEIGHT = 1.2, 0.75
"""k1 and b of BM25, the usual values."""

Span = tuple[int, int]


@dataclass(frozen=True)
class Pair:
    """A question with a right answer. Spans are tokens of the documents."""

    question: str
    answer: str
    ranks: dict[str, int | None]
    """By method, which of the passages is the first that touches the right one; None: none."""
    chance: float
    """That one of as many passages of the same length, picked blindly, touches it."""
    tokens: float
    """Mean length of the sources."""
    drop: float | None
    """Nats the answer loses without the first source that is right; None: there is none."""
    random_drop: float | None


def passage_spans(layout: DocumentTokens, passage: str) -> list[Span]:
    """Return where a passage occurs, whatever its line breaks."""
    wanted = re.compile(r"\s+".join(map(re.escape, passage.split())))
    spans = []
    for document in layout.documents:
        for section in document.sections:
            for match in wanted.finditer(section.section.text):
                touched = [
                    token
                    for token, (start, end) in enumerate(section.offsets)
                    if start < match.end() and end > match.start()
                ]
                spans.append(
                    (section.text_start + touched[0], section.text_start + touched[-1] + 1)
                )
    return spans


def touches(one: Span, others: Sequence[Span]) -> bool:
    """Return whether a span shares a token with any of the others."""
    return any(one[0] < end and start < one[1] for start, end in others)


def first_touching(passages: Sequence[Span], right: Sequence[Span]) -> int | None:
    """Return the rank of the first passage shown that overlaps a right one."""
    return next((n for n, passage in enumerate(passages[:SHOWN]) if touches(passage, right)), None)


def words(text: str) -> list[str]:
    """Return the words of a text in lower case."""
    return re.findall(r"\w+", text.lower())


def keyword_search(question: str, texts: Sequence[str], spans: Sequence[Span]) -> list[Span]:
    """Return the best passages by BM25 (Robertson and Zaragoza, 2009) that do not overlap."""
    counts = [Counter(words(text)) for text in texts]
    mean = sum(count.total() for count in counts) / len(counts)
    scores = [0.0] * len(texts)
    for word in set(words(question)):
        held = sum(word in count for count in counts)
        rarity = math.log(1 + (len(texts) - held + 0.5) / (held + 0.5))
        for number, count in enumerate(counts):
            longer = 1 - LENGTH_WEIGHT + LENGTH_WEIGHT * count.total() / mean
            times = count[word]
            scores[number] += rarity * times * (SATURATION + 1) / (times + SATURATION * longer)
    chosen: list[Span] = []
    for number in sorted(range(len(texts)), key=lambda n: -scores[n]):
        if len(chosen) < SHOWN and not touches(spans[number], chosen):
            chosen.append(spans[number])
    return chosen


def chance_of(right: Sequence[Span], length: int, tokens: int, draw: random.Random) -> float:
    """Return the probability that one of three random passages of a length overlaps a right one."""
    found = 0
    for _ in range(DRAWS):
        starts = [draw.randrange(max(tokens - length, 1)) for _ in range(SHOWN)]
        found += any(touches((start, start + length), right) for start in starts)
    return found / DRAWS


def ask(conversation: Conversation, question: str) -> Answer:
    """Return the greedy answer to a question."""
    return next(e for e in conversation.ask(question, SAMPLING) if isinstance(e, Answer))


def span_of(source: Source) -> Span:
    """Return the tokens of a passage."""
    return source.start_token, source.end_token


class Examiner:
    """Ask about one set of documents in a session."""

    def __init__(self, model: LoadedModel, entry: dict[str, Any]) -> None:
        folder = FOLDERS[entry["from"]]
        loaded = load_documents([str(folder / file) for file in entry["files"]])
        self.layout = lay_out(loaded, model.tokenizer)
        self._tokenizer = model.tokenizer
        self.wrong: list[bool] = []
        """For each wrong answer, whether sources are named."""
        cache = CacheConfig(context=len(self.layout.token_ids) + 1024)
        engine = open_engine(model, EngineConfig(cache=cache))
        self.conversation = Conversation(engine, self.layout)
        for _ in self.conversation.prefill():
            pass

    def close(self) -> None:
        """Release the session's memory."""
        self.conversation.close()

    def windows(self, length: int) -> tuple[list[str], list[Span]]:
        """Return the documents in passages of ``length`` tokens that overlap by half."""
        ids = self.layout.token_ids
        starts = range(0, max(len(ids) - length // 2, 1), max(length // 2, 1))
        spans = [(start, min(start + length, len(ids))) for start in starts]
        return [self._tokenizer.decode(ids[start:end]) for start, end in spans], spans

    def examine(self, pair: dict[str, str], draw: random.Random) -> Pair | None:
        """Ask; return None if the answer is wrong or the document lacks the passage."""
        right = passage_spans(self.layout, pair["passage"])
        if not right:
            print(f"not in these documents: {pair['passage']}", file=sys.stderr)
            return None
        answer = ask(self.conversation, pair["question"])
        try:
            if not re.search(pair["answer"], answer.text, re.IGNORECASE):
                self.wrong.append(bool(answer.sources))
                return None
            shown = [span_of(source) for source in answer.sources[:SHOWN]]
            tokens = sum(end - start for start, end in shown) / max(len(shown), 1)
            length = max(round(tokens), TRACE_BIN_TOKENS)
            found = first_touching(shown, right)
            searched = keyword_search(pair["question"], *self.windows(length))
            return Pair(
                question=pair["question"],
                answer=answer.text.strip(),
                ranks={"sources": found, "keywords": first_touching(searched, right)},
                chance=chance_of(right, length, len(self.layout.token_ids), draw),
                tokens=tokens,
                **self._drops(answer, found),
            )
        finally:
            self.conversation.rewind()

    def _drops(self, answer: Answer, found: int | None) -> dict[str, float | None]:
        """Return the costs of hiding the right source and of hiding a random one."""
        if found is None:
            return {"drop": None, "random_drop": None}
        self.conversation.turns[-1] = replace(answer, sources=(answer.sources[found],))
        (effect,) = verify(self.conversation, len(self.conversation.turns) - 1).effects
        return {"drop": effect.drop, "random_drop": effect.random_drop}

    def unrelated(self, questions: Sequence[str]) -> Iterator[bool]:
        """Yield whether sources are named for each question unrelated to the documents."""
        for question in questions:
            yield bool(ask(self.conversation, question).sources)
            self.conversation.rewind()


def report_of(
    pairs: Sequence[Pair], asked: int, unrelated: Sequence[bool], wrong: Sequence[bool]
) -> dict[str, Any]:
    """Return the figures.

    Args:
        pairs: the right answers.
        asked: questions about the documents.
        unrelated: for each question about something else, whether sources are named.
        wrong: the same for each wrong answer.
    """

    def within(method: str, shown: int) -> float:
        ranks = [pair.ranks[method] for pair in pairs]
        return sum(rank is not None and rank < shown for rank in ranks) / len(pairs)

    drops = [
        (p.drop, p.random_drop) for p in pairs if p.drop is not None and p.random_drop is not None
    ]
    return {
        "asked": asked,
        "right": len(pairs),
        "tokens_per_passage": sum(pair.tokens for pair in pairs) / len(pairs),
        "first": {method: within(method, 1) for method in ("sources", "keywords")},
        "first_three": {method: within(method, SHOWN) for method in ("sources", "keywords")}
        | {"blind": sum(pair.chance for pair in pairs) / len(pairs)},
        "right_without_sources": sum(not pair.tokens for pair in pairs) / len(pairs),
        "unrelated_with_sources": sum(unrelated) / max(len(unrelated), 1),
        "wrong_with_sources": sum(wrong) / max(len(wrong), 1),
        "verified": {
            "pairs": len(drops),
            "drop_above_random": sum(drop > other for drop, other in drops) / max(len(drops), 1),
            "mean_drop_nats": sum(drop for drop, _ in drops) / max(len(drops), 1),
            "mean_random_drop_nats": sum(other for _, other in drops) / max(len(drops), 1),
        },
        "missed": [pair.question for pair in pairs if pair.ranks["sources"] is None],
    }


def as_text(report: dict[str, Any]) -> str:
    """Return the figures as text."""
    first, three, verified = report["first"], report["first_three"], report["verified"]
    rows = [
        ("sources of the answer", f"{first['sources']:.1%}", f"{three['sources']:.1%}"),
        ("keyword search (BM25)", f"{first['keywords']:.1%}", f"{three['keywords']:.1%}"),
        ("picked blindly", "", f"{three['blind']:.1%}"),
    ]
    return (
        f"{report['right']} of {report['asked']} answers right; passages of "
        f"{report['tokens_per_passage']:.0f} tokens\n"
        f"{table(('the right passage is', 'the first', 'among three'), rows)}\n"
        f"sources named: for {1 - report['right_without_sources']:.1%} of right answers, for "
        f"{report['wrong_with_sources']:.1%} of wrong ones, for "
        f"{report['unrelated_with_sources']:.1%} of questions about something else\n"
        f"verified: without the right source the answer loses {verified['mean_drop_nats']:.2f} "
        f"nats, without one picked blindly {verified['mean_random_drop_nats']:.2f}; more in "
        f"{verified['drop_above_random']:.1%} of {verified['pairs']}"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("names", nargs="*", help="beginnings of names of documents; all if none")
    arguments = parser.parse_args()
    questions = json.loads((ROOT / "assets/samples/passages.json").read_text(encoding="utf-8"))
    model = prepare_model(pull_model(arguments.model, print))
    draw = random.Random(0)
    pairs: list[Pair] = []
    unrelated: list[bool] = []
    wrong: list[bool] = []
    asked = 0
    for entry in questions["documents"]:
        if arguments.names and not entry["name"].startswith(tuple(arguments.names)):
            continue
        began = time.perf_counter()
        examiner = Examiner(model, entry)
        found = [examiner.examine(pair, draw) for pair in entry["pairs"]]
        unrelated += examiner.unrelated(questions["unrelated"])
        examiner.close()
        wrong += examiner.wrong
        asked += len(found)
        pairs += [pair for pair in found if pair is not None]
        print(
            f"{entry['name']}: {len(examiner.layout.token_ids):,} tokens, "
            f"{time.perf_counter() - began:.0f} s",
            file=sys.stderr,
        )
    report = report_of(pairs, asked, unrelated, wrong)
    print(json.dumps(report, indent=1) if arguments.json else as_text(report))


if __name__ == "__main__":
    main()
