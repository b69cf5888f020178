"""Token sequences for training: texts, planted facts, and turns about them."""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hga_chat.conversation.prompts import first_question, next_question
from hga_engine.tokenizer.tokenizer import Tokenizer
from tools.adapter.data import Data, Text
from tools.adapter.facts import Planted, Question, hard_facts, single_facts
from tools.adapter.questions import Placed, about

_KINDS = {"code": 0.55, "manual": 0.27, "prose": 0.18}
_BARE_SHARE = 0.25
"""Sequences without the conversation's opening and the documents' headers."""
_HARD_SHARE = 0.3
_PAGED_SHARE, _PAGE_CHARS = 0.4, 2_400
_LIST_SHARE = 0.08
_FACTS_SHARE = 0.75
"""Share of the room for turns that planted facts may take."""
_TURN_TOKENS = 42
"""A question about a fact with its answer, about."""
_PLANTED_SHARE = 0.25
"""Share of a sequence that lines of facts may take."""
_COPY_TOKENS = 32
"""Answers that are longer weigh as much as one of so many tokens."""
_CHAT_WEIGHT = 6.0
"""Weight of a token of a short conversation: there are few beside those of texts."""
_WORD = re.compile(rb" [a-z]{4,8}")

Ids = npt.NDArray[np.uint16]
Weights = npt.NDArray[np.float32]


@dataclass(frozen=True)
class LongSequence:
    """One sequence; a weight is that of predicting the token at the same index."""

    token_ids: Ids  # [length]
    text_weights: Weights  # [length]
    answer_weights: Weights  # [length]


class Maker:
    """Make sequences of any length, each from its own seed."""

    def __init__(self, data: Data, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self._by_origin: dict[str, dict[str, list[Text]]] = {}
        for text in sorted(data.of(*_KINDS), key=lambda text: text.path):
            folder = text.path.split("/")[0] if text.kind == "code" else text.path
            origin = text.origin if text.kind == "manual" else folder
            self._by_origin.setdefault(text.kind, {}).setdefault(origin, []).append(text)
        self._chats = data.chats
        self._short = data.of(*_KINDS)
        tokens = map(self.tokenizer.token_bytes, range(self.tokenizer.vocab_size))
        self._words = sorted({t.decode().strip() for t in tokens if _WORD.fullmatch(t)})
        self._padding = self.tokenizer.to_next_question()[0]

    def long(self, length: int, seed: int) -> LongSequence:
        """Return documents with planted facts, and turns about them at the end."""
        draw = random.Random(seed)
        is_bare = draw.random() < _BARE_SHARE
        opening = [] if is_bare else self.tokenizer.opening(None)
        turns_room = int(length * 0.05) + min(1_200, length // 6)
        planted, lines_room = self._planted(draw, length, turns_room)
        room = length - len(opening) - turns_room - lines_room - 16
        chosen = self._choose(draw, room, is_bare)
        questions = [
            (place, one)
            for place, text in enumerate(chosen)
            for one in about(text.text, text.path, text.kind, draw)
            # Without headers nothing tells the path.
            if not is_bare or text.path not in one.asked.question + one.asked.answer
        ]
        questions = _clear(questions, "".join(text.text for text in chosen))
        draw.shuffle(questions)
        asked = questions[: turns_room // 24]
        bodies = _plant(draw, chosen, planted, asked)
        ids = list(opening)
        for text, body in zip(chosen, bodies, strict=True):
            ids += self.document(text, body, is_bare)
        text_end = len(ids)
        turns = self._turns(draw, planted, [one.asked for _, one in asked], turns_room)
        return self._finish(ids, text_end, len(opening), turns, is_bare, length)

    def short(self, length: int, seed: int) -> tuple[Ids, Weights]:
        """Return a short window for the base model: text, or a row of conversations.

        Returns:
            [length] tokens, and [length] weights of predicting them, 0 where there is nothing.
        """
        draw = random.Random(seed)
        if self._chats and draw.random() < 0.4:
            ids: list[int] = []
            while len(ids) < length // 2:
                prompt, answer = draw.choice(self._chats)
                encode = self.tokenizer.encode
                ids += [*self.tokenizer.opening(None), *encode(prompt)]
                ids += [*self.tokenizer.to_answer(), *encode(answer), self._padding, *encode("\n")]
                # One conversation a window as a rule, as people begin.
                if draw.random() < 0.5:
                    break
            return self._padded(ids, length, _CHAT_WEIGHT)
        text = draw.choice(self._short)
        start = draw.randrange(max(len(text.text) - 5 * length, 1))
        ids = self.tokenizer.encode(text.text[start : start + 6 * length])
        if draw.random() < 0.3:
            ids = [*self.tokenizer.opening(None), *ids]
        return self._padded(ids, length)

    def _padded(self, ids: Sequence[int], length: int, weight: float = 1.0) -> tuple[Ids, Weights]:
        tokens = np.full(length, self._padding, np.uint16)
        weights = np.zeros(length, np.float32)
        count = min(len(ids), length)
        tokens[:count] = ids[:count]
        weights[1:count] = weight
        return tokens, weights

    def _planted(
        self, draw: random.Random, length: int, turns_room: int
    ) -> tuple[list[Planted], int]:
        """Return facts and the tokens of their lines."""
        facts: list[Planted] = []
        if draw.random() < _HARD_SHARE:
            hard = list(hard_facts(draw, self._words, int(length * _LIST_SHARE)))
            facts += draw.sample(hard, draw.randrange(2, len(hard) + 1))
        most = max(int(turns_room * _FACTS_SHARE / _TURN_TOKENS), 4)
        facts += single_facts(draw, draw.randrange(most // 3, most + 1))
        kept, tokens = [], 0
        for fact in facts:
            size = sum(len(self.tokenizer.encode(f"{line}\n")) for line in fact.lines)
            if tokens + size <= length * _PLANTED_SHARE:
                kept.append(fact)
                tokens += size
        return kept, tokens

    def _choose(self, draw: random.Random, room: int, is_bare: bool) -> list[Text]:
        """Return texts that fill ``room`` tokens; the last is cut at the end of a line."""
        chosen: list[Text] = []
        while room > 64:
            kind = draw.choices(list(_KINDS), list(_KINDS.values()))[0]
            origins = self._by_origin.get(kind)
            if not origins:
                continue
            sizes = [sum(len(text.text) for text in texts) ** 0.5 for texts in origins.values()]
            texts = draw.choices(list(origins.values()), sizes)[0]
            first = draw.randrange(len(texts))
            for text in [*texts[first:], *texts[:first]]:
                if kind == "prose":
                    text = _part(text, draw)
                ids, offsets = self.tokenizer.encode_with_offsets(text.text)
                header = len(self.document(text, "", is_bare))
                if len(ids) + header > room:
                    end = offsets[max(room - header, 0)][0] if room > header else 0
                    end = text.text.rfind("\n", 0, end) + 1
                    if end:
                        chosen.append(_with(text, text.text[:end]))
                    if chosen:
                        return chosen
                    break
                chosen.append(text)
                room -= len(ids) + header
        return chosen

    def document(self, text: Text, body: str, is_bare: bool) -> list[int]:
        """Return a document's tokens as ``hga_chat.documents.layout`` lays them out."""
        encode = self.tokenizer.encode
        if is_bare:
            return encode(body if body.endswith("\n") else f"{body}\n")
        ending = "\n" if body.endswith("\n") else "\n\n"
        return [*encode(f"File: {text.path}\n\n"), *encode(body), *encode(ending)]

    def _turns(
        self,
        draw: random.Random,
        planted: Sequence[Planted],
        natural: Sequence[Question],
        room: int,
    ) -> list[Question]:
        """Return turns in random order, as many as there is room for."""
        about_facts = [question for fact in planted for question in fact.questions]
        draw.shuffle(about_facts)
        kept, left = [], room
        for questions, least in ((about_facts, room * (1 - _FACTS_SHARE)), (natural, 0)):
            for one in questions:
                size = len(self.tokenizer.encode(one.question + one.answer)) + 12
                if left - size >= least:
                    kept.append(one)
                    left -= size
        draw.shuffle(kept)
        return kept

    def _finish(
        self,
        ids: list[int],
        text_end: int,
        text_start: int,
        turns: Sequence[Question],
        is_bare: bool,
        length: int,
    ) -> LongSequence:
        text_weights = np.zeros(length, np.float32)
        answer_weights = np.zeros(length, np.float32)
        text_weights[text_start + 1 : text_end] = 1
        tokenizer = self.tokenizer
        for number, turn in enumerate(turns):
            if number or is_bare:
                asking = next_question(tokenizer, turn.question)
            else:
                asking = first_question(tokenizer, turn.question, after_documents=True)
            answer = [*tokenizer.encode(turn.answer), self._padding]
            if len(ids) + len(asking) + len(answer) > length:
                continue
            # The token that ends an answer opens the next turn.
            ids = [*(ids[:-1] if number else ids), *asking]
            answer_weights[len(ids) : len(ids) + len(answer)] = min(1, _COPY_TOKENS / len(answer))
            ids += answer
        tokens = np.full(length, self._padding, np.uint16)
        tokens[: len(ids)] = ids[:length]
        return LongSequence(tokens, text_weights, answer_weights)


def _with(text: Text, body: str) -> Text:
    return Text(text.path, text.kind, text.origin, text.licence, body, text.is_held_out)


def _part(text: Text, draw: random.Random) -> Text:
    """Return a novel from a random paragraph on, sometimes with page markers."""
    start = text.text.find("\n\n", draw.randrange(len(text.text) * 3 // 4)) + 2
    body = text.text[start:]
    if draw.random() < _PAGED_SHARE:
        pages, page, at = [], draw.randrange(1, 40), 0
        while at < len(body):
            end = body.find("\n", at + _PAGE_CHARS) + 1 or len(body)
            pages.append(f"[page {page}]\n{body[at:end]}\n")
            page, at = page + 1, end
        body = "".join(pages)
    return _with(text, body)


def _clear(questions: list[tuple[int, Placed]], whole: str) -> list[tuple[int, Placed]]:
    """Return the questions with one answer: asked once, about a line that occurs once."""
    counts: dict[str, int] = {}
    for _, one in questions:
        counts[one.asked.question] = counts.get(one.asked.question, 0) + 1
    kept = []
    for place, one in questions:
        _, has_line, line = one.asked.question.partition("\n")
        if counts[one.asked.question] == 1 and (not has_line or whole.count(line) == 1):
            kept.append((place, one))
    return kept


def _plant(
    draw: random.Random,
    chosen: Sequence[Text],
    planted: Sequence[Planted],
    asked: Sequence[tuple[int, Placed]],
) -> list[str]:
    """Plant the lines of facts at uniformly drawn places of the texts."""
    kept_whole: list[list[tuple[int, int]]] = [[] for _ in chosen]
    for number, one in asked:
        kept_whole[number].append((one.start, one.end))
    gaps: list[tuple[int, int]] = []
    for number, text in enumerate(chosen):
        at = 0
        for line in text.text.splitlines(keepends=True):
            if not any(start < at < end for start, end in kept_whole[number]):
                gaps.append((number, at))
            at += len(line)
    inserted: dict[tuple[int, int], list[str]] = {}
    for fact in planted:
        for gap, line in zip(
            sorted(draw.choices(gaps, k=len(fact.lines))), fact.lines, strict=True
        ):
            inserted.setdefault(gap, []).append(f"{line}\n")
    bodies = []
    for number, text in enumerate(chosen):
        pieces, done = [], 0
        for place, at in sorted(gap for gap in inserted if gap[0] == number):
            pieces += [text.text[done:at], *inserted[place, at]]
            done = at
        bodies.append("".join([*pieces, text.text[done:]]))
    return bodies
