"""``ask``: one question, one answer."""

import threading
import time
from contextlib import closing
from typing import TYPE_CHECKING, Annotated

import typer

from hga_chat.cli.options import ANSWERING, Json, OptionalPaths, with_settings
from hga_chat.cli.progress import INTERRUPTED, cancel_on_interrupt, read_documents
from hga_chat.settings import Settings

if TYPE_CHECKING:
    from hga_chat.cli.prepare import Start
    from hga_chat.conversation.answer import Answer
    from hga_chat.conversation.conversation import Conversation
    from hga_chat.output import Output

_EXCERPT_CHARS = 72


@with_settings(*ANSWERING)
def ask(
    *,
    paths: OptionalPaths = None,
    question: Annotated[str, typer.Argument(metavar="QUESTION")],
    settings: Settings,
    session: Annotated[
        str | None,
        typer.Option(
            "--session", metavar="SESSION", help="Ask in a saved session, after its turns."
        ),
    ] = None,
    with_verification: Annotated[
        bool,
        typer.Option(
            "--verify", help="Score the answer again without each of its sources; takes seconds."
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Read documents and answer one question about them."""
    from hga_chat.output import Output

    output = Output(quiet=settings.quiet)
    start = _start(paths or [], session, question, settings, output)
    started = time.perf_counter()
    conversation = start.open(output.progress)
    load_s = time.perf_counter() - started
    try:
        unread = conversation.unread
        for note in conversation.notes:
            output.note(note)
        with cancel_on_interrupt() as cancel:
            read_s = read_documents(conversation, output, cancel)
            answer = _answer(conversation, question, settings, output, cancel, stream=not as_json)
            verification = None
            if with_verification and answer.sources:
                from hga_chat.conversation.verify import verify

                verification = verify(conversation, len(conversation.turns) - 1, cancel)
        if as_json:
            report = _report(conversation, answer, load_s, read_s)
            if verification is not None:
                report["verification"] = verification.as_object()
            output.json(report)
        else:
            _note_answer(conversation, answer, read_s if unread else None, output)
            if verification is not None:
                output.note(f"\n{verification.as_text()}")
        # Only now, so that nobody waits for the disk.
        _save(conversation, output, is_new=bool(unread), with_turn=session is not None)
    except BrokenPipeError:  # nobody wants more of the answer, but perhaps of the documents
        _save(conversation, output, is_new=bool(unread), with_turn=session is not None)
        raise
    finally:
        conversation.close()
    if answer.finished.reason == "cancelled":
        raise typer.Exit(INTERRUPTED)


def _start(
    paths: list[str], session: str | None, question: str, settings: Settings, output: "Output"
) -> "Start":
    """What the question is about: a saved session or documents."""
    from hga_chat.cli.prepare import note_skipped, prepare, start_on_documents, start_on_session
    from hga_chat.errors import UsageError

    if not question.strip():
        raise UsageError("The question is empty.")
    if session is not None:
        if paths:
            raise UsageError("--session takes only a question; its documents have been read.")
        return start_on_session(session, settings, output)
    if not paths:
        raise UsageError("Missing argument 'PATH': give documents and a question, or --session.")
    prepared = prepare(paths, settings, output, question)
    prepared.check_budget()
    note_skipped(prepared, output)
    return start_on_documents(prepared, paths, settings, output, for_one_answer=True)


def _answer(
    conversation: "Conversation",
    question: str,
    settings: Settings,
    output: "Output",
    cancel: threading.Event,
    *,
    stream: bool,
) -> "Answer":
    from hga_chat.conversation.answer import Answer
    from hga_engine.events import TextDelta

    # Closed, the session is as before the question.
    with closing(conversation.ask(question, settings.sampling(), cancel)) as events:
        for event in events:
            if isinstance(event, Answer):
                answer = event
            elif stream and isinstance(event, TextDelta) and event.text:
                output.write(event.text)
    if stream and answer.text:
        output.write("\n")
    return answer


def _save(conversation: "Conversation", output: "Output", *, is_new: bool, with_turn: bool) -> None:
    """Keep what was read, and the turn where it belongs to a session."""
    if conversation.is_read and (is_new or with_turn):
        save = conversation.save_if_possible if with_turn else conversation.save_reading
        for note in save():
            output.note(note)


def _note_answer(
    conversation: "Conversation", answer: "Answer", read_s: float | None, output: "Output"
) -> None:
    """What was read for the answer, and how fast; ``read_s`` is None where nothing was unread."""
    finished = answer.finished
    if finished.reason == "cancelled":
        output.note("Interrupted.")
        if not conversation.is_read:
            return
    elif finished.reason == "length":
        output.note("The answer was cut here; --max-new-tokens allows a longer one.")
    if answer.sources:
        output.note("\nRead most for this answer (share of the attention that stands out):")
        for source in answer.sources:
            excerpt = " ".join(source.text.split())[:_EXCERPT_CHARS]
            output.note(f"  {source.score:4.0%}  {source.place}  {excerpt}")
    elif answer.from_conversation:
        output.note("\nRead most for this answer: the conversation, not the documents.")
    elif conversation.layout and answer.text:
        output.note("\nNo passage of the documents stands out for this answer.")
    tokens = len(conversation.layout.token_ids) if conversation.layout else 0
    how = "had been read before" if read_s is None else f"read in {read_s:.1f} s"
    output.note(
        f"\n{tokens:,} tokens {how}; first token after {finished.ttft_s:.1f} s; "
        f"{finished.decode_tokens_per_s:.0f} tokens/s over {finished.sparsity:.1%} of them."
    )


def _report(
    conversation: "Conversation",
    answer: "Answer",
    load_s: float,
    read_s: float,
) -> dict[str, object]:
    """The object that ``--json`` prints. Times in seconds, first token counted from reading."""
    engine, finished = conversation.engine, answer.finished
    memory, routing = engine.memory(), engine.config.routing
    documents = conversation.layout.documents if conversation.layout else ()
    return {
        "answer": answer.text,
        "finish_reason": finished.reason,
        "model": {"name": engine.model_name, "fingerprint": engine.fingerprint},
        "documents": [
            {
                "path": span.document.path,
                "sections": len(span.document.sections),
                "tokens": span.tokens,
            }
            for span in documents
        ],
        "skipped": [{"path": entry.path, "reason": entry.reason} for entry in conversation.skipped],
        "sources": [source.as_object() for source in answer.sources],
        "usage": {
            "document_tokens": sum(span.tokens for span in documents),
            "prompt_tokens": finished.prompt_tokens,
            "completion_tokens": finished.completion_tokens,
        },
        "timing": {
            "load_s": round(load_s, 3),
            "prefill_s": round(read_s + finished.prefill_s, 3),
            "ttft_s": round(read_s + finished.ttft_s, 3),
            "decode_tokens_per_s": round(finished.decode_tokens_per_s, 2),
        },
        "memory": {
            "weights_bytes": memory.weights_bytes,
            "index_bytes": memory.index_bytes,
            "kv_device_bytes": memory.kv_device_bytes,
            "kv_host_bytes": memory.kv_host_bytes,
            "kv_disk_bytes": memory.kv_disk_bytes,
            "device_peak_bytes": memory.device_peak_bytes,
            "host_peak_bytes": memory.host_peak_bytes,
        },
        "routing": {
            "router": routing.kind,
            "budget_tokens": routing.budget_tokens,
            "sparsity": round(finished.sparsity, 5),
        },
    }
