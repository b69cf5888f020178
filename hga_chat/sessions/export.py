"""Exports a session: Markdown for people, JSON for programs."""

from collections.abc import Sequence
from typing import Any

from hga_chat.display import displayable
from hga_chat.documents import Counted, listing
from hga_chat.sessions.types import SavedDocuments, SavedTurn, SavedTurns, SessionInfo
from hga_chat.sources import Source

_EXCERPT_CHARS = 400


def as_object(info: SessionInfo, documents: SavedDocuments, turns: SavedTurns) -> dict[str, Any]:
    """Return everything but the documents' text as JSON values."""
    loaded = documents.loaded
    counted = [
        Counted.of(document, tokens)
        for document, tokens in zip(loaded.documents, documents.tokens, strict=True)
    ]
    return {
        "session": info.id,
        "title": info.title,
        "created": info.created,
        "updated": turns.updated,
        "paths": list(info.origin.paths),
        "model": {"name": info.model_name, "fingerprint": info.fingerprint},
        "settings": {
            "context": info.origin.context,
            "router": info.origin.router,
            "budget_tokens": info.origin.budget_tokens,
            "include": list(info.origin.include),
            "exclude": list(info.origin.exclude),
            "fit": info.origin.fit,
            "redact": info.origin.redact,
            "system": info.origin.system,
        },
        **listing(counted, loaded.skipped),
        "turns": [_turn_as_object(turn) for turn in turns.turns],
    }


def _turn_as_object(turn: SavedTurn) -> dict[str, Any]:
    finished = turn.finished
    return {
        "question": turn.question,
        "answer": turn.text,
        **({"thought": turn.thought} if turn.thought else {}),
        "finish_reason": finished.reason,
        "sources": [source.as_object() for source in turn.sources],
        **({"limited_to": [*turn.scope.limited_to]} if turn.scope.limited_to else {}),
        **({"without": [*turn.scope.without]} if turn.scope.without else {}),
        "usage": {
            "prompt_tokens": finished.prompt_tokens,
            "completion_tokens": finished.completion_tokens,
        },
        "timing": {
            "prefill_s": round(finished.prefill_s, 3),
            "ttft_s": round(finished.ttft_s, 3),
            "decode_tokens_per_s": round(finished.decode_tokens_per_s, 2),
        },
        "sparsity": round(finished.sparsity, 5),
    }


def as_markdown(info: SessionInfo, documents: SavedDocuments, turns: SavedTurns) -> str:
    """Return the session as Markdown: its documents, then the turns with their sources."""
    lines = [
        f"# {_one_line(info.title)}",
        "",
        f"{sum(documents.tokens):,} tokens in {len(documents.tokens)} documents, read by "
        f"{info.model_name}; last changed {turns.updated}.",
        "",
        *(
            f"- {_code(document.path)}, {tokens:,} tokens"
            for document, tokens in zip(documents.loaded.documents, documents.tokens, strict=True)
        ),
    ]
    head = displayable("\n".join(lines)) + "\n"
    return head + "\n" + turns_as_markdown(turns.turns) if turns.turns else head


def turns_as_markdown(turns: Sequence[SavedTurn]) -> str:
    """Return questions and answers with their sources as Markdown."""
    lines: list[str] = []
    for number, turn in enumerate(turns, 1):
        lines += ["", f"## Question {number}", "", *_quote(turn.question), "", turn.text.strip()]
        if turn.finished.reason != "stop":
            ends = {
                "length": "The answer hit the length limit.",
                "cancelled": "The answer was stopped.",
            }
            lines += ["", f"*{ends[turn.finished.reason]}*"]
        if turn.sources:
            lines += ["", "Sources:", ""]
            for source in turn.sources:
                lines += [f"- {source.score:.0%} {_code(source.place)}", *_excerpt(source)]
    return displayable("\n".join(lines).lstrip("\n")) + "\n"


def _quote(text: str) -> list[str]:
    return [f"> {line}" for line in text.strip().splitlines()]


def _excerpt(source: Source) -> list[str]:
    """Return a passage as an indented code block; its fence is longer than any run in it."""
    text = source.text[:_EXCERPT_CHARS].strip("\n")
    fence = "`" * (max(2, _longest_run_of_backticks(text)) + 1)
    return ["", *(f"  {line}" for line in (fence, *text.splitlines(), fence)), ""]


def _code(name: str) -> str:
    """Return a name as inline code; its fence is longer than any run of backticks in it."""
    fence = "`" * (_longest_run_of_backticks(name) + 1)
    space = " " if "`" in name else ""
    return f"{fence}{space}{_one_line(name)}{space}{fence}"


def _longest_run_of_backticks(text: str) -> int:
    longest = run = 0
    for character in text:
        run = run + 1 if character == "`" else 0
        longest = max(longest, run)
    return longest


def _one_line(name: str) -> str:
    return " ".join(name.split())
