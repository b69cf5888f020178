"""``ask``: one question, one answer."""

import threading
import time
from contextlib import closing
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hga_chat.cli import completion
from hga_chat.cli.options import ANSWERING, Json, OptionalPaths, with_settings
from hga_chat.cli.progress import INTERRUPTED, cancel_on_interrupt, prefill_documents
from hga_chat.settings import Settings

if TYPE_CHECKING:
    from hga_chat.cli.prepare import Start
    from hga_chat.conversation.answer import Answer
    from hga_chat.conversation.conversation import Conversation
    from hga_chat.output import Output


@with_settings(*ANSWERING)
def ask(
    *,
    paths: OptionalPaths = None,
    question: Annotated[str, typer.Argument(metavar="QUESTION", help="The question.")],
    settings: Settings,
    session: Annotated[
        str | None,
        typer.Option(
            "--session",
            metavar="SESSION",
            help="Ask in a saved session; takes no PATH.",
            autocompletion=completion.sessions,
        ),
    ] = None,
    with_verification: Annotated[
        bool,
        typer.Option(
            "--verify",
            help="Check each source: hide it and score the answer again. Takes seconds.",
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Answer one question about documents."""
    from hga_chat.output import Output

    output = Output(quiet=settings.quiet)
    start = _start(paths or [], session, question, settings, output)
    started = time.perf_counter()
    conversation = start.open(output.progress)
    load_s = time.perf_counter() - started
    try:
        is_new = not conversation.is_prefilled
        for note in conversation.notes:
            output.note(note)
        with cancel_on_interrupt() as cancel:
            prefill_s = prefill_documents(conversation, output, cancel)
            kept = [] if conversation.is_prefilled else conversation.keep_part()
            answer = _answer(conversation, question, settings, output, cancel, stream=not as_json)
            verification = None
            if with_verification and answer.sources:
                from hga_chat.conversation.verify import verify

                verification = verify(conversation, len(conversation.turns) - 1, cancel)
        if as_json:
            report = _report(conversation, answer, load_s, prefill_s)
            if verification is not None:
                report["verification"] = verification.as_object()
            output.json(report)
        elif conversation.is_prefilled:
            _note_answer(conversation, answer, prefill_s if is_new else None, output)
            if verification is not None:
                output.note(f"\n{verification.as_text()}")
            if session is not None and conversation.room_note is not None:
                output.note(f"\n{conversation.room_note}")
        for note in kept:
            output.note(note)
        # After printing, so that the answer does not wait for the disk.
        _save(conversation, output, is_new=is_new, in_session=session is not None)
    except BrokenPipeError:  # the reader is gone, but the K/V serves the next question
        _save(conversation, output, is_new=is_new, in_session=session is not None)
        raise
    finally:
        conversation.close()
    if answer.finished.reason == "cancelled":
        raise typer.Exit(INTERRUPTED)


def _start(
    paths: list[str], session: str | None, question: str, settings: Settings, output: "Output"
) -> "Start":
    """Start on a saved session or on documents, whichever the arguments name."""
    from hga_chat.cli.prepare import note_skipped, prepare, start_on_documents, start_on_session
    from hga_chat.errors import UsageError

    if not question.strip():
        raise UsageError("The question is empty.")
    if session is not None:
        if paths:
            raise UsageError("--session takes only a question; the session has its documents.")
        return start_on_session(session, settings, output)
    if not paths:
        raise UsageError("Missing argument 'PATH': give documents and a question, or --session.")
    prepared = prepare(paths, settings, output, question)
    prepared.check_budget()
    note_skipped(prepared, output)
    return start_on_documents(prepared, paths, output, for_one_answer=True)


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
    from hga_chat.conversation.thought import THOUGHT_TOKENS, Thought
    from hga_engine.events import TextDelta

    thoughts = 0
    # Closing the generator early takes the question back out of the session.
    with closing(conversation.ask(question, settings.sampling(), cancel)) as events:
        for event in events:
            if isinstance(event, Answer):
                answer = event
            elif isinstance(event, Thought):
                thoughts += 1
                output.progress("Thinking", min(thoughts / THOUGHT_TOKENS, 1.0))
            elif stream and isinstance(event, TextDelta) and event.text:
                output.write(event.text)
    if stream and answer.text:
        output.write("\n")
    return answer


def _save(
    conversation: "Conversation", output: "Output", *, is_new: bool, in_session: bool
) -> None:
    """Save the K/V of the documents; in a session, save the turn as well."""
    if not conversation.is_prefilled or not (is_new or in_session):
        return
    saved = conversation.saved
    is_first = saved is not None and saved.is_new
    save = conversation.save_if_possible if in_session else conversation.save_documents
    for note in save():
        output.note(note)
    if saved is not None and is_first and not saved.is_new:
        from hga_chat.output import human_bytes
        from hga_chat.sessions.files import disk_bytes

        size = human_bytes(disk_bytes(saved.folder) + disk_bytes(saved.kv_folder))
        output.note(
            f"What was read is kept for the next question: {size} on disk, "
            f"session {saved.info.id}. --no-save keeps nothing."
        )


def _note_answer(
    conversation: "Conversation", answer: "Answer", prefill_s: float | None, output: "Output"
) -> None:
    """Print the sources and the speed; ``prefill_s`` is None if all was prefilled before."""
    from hga_chat.excerpt import excerpt

    finished = answer.finished
    if finished.reason == "cancelled":
        output.note("Interrupted.")
    elif finished.reason == "length":
        output.note("The answer hit the length limit; --max-new-tokens raises it.")
    if answer.scope_note:
        output.note(f"\n{answer.scope_note}")
    if answer.sources:
        output.note("\nSources (share of attention above baseline):")
        for source in answer.sources:
            output.note(f"  {source.score:4.0%}  {source.place}")
            output.note(f"        {excerpt(source.text, answer.text)}")
    elif answer.from_conversation:
        output.note("\nNo clear source: mostly earlier turns.")
    elif conversation.layout and answer.text:
        output.note("\nNo clear source.")
    tokens = len(conversation.layout.token_ids) if conversation.layout else 0
    how = "already read" if prefill_s is None else f"read in {prefill_s:.1f} s"
    output.note(
        f"\n{tokens:,} tokens {how}; first token after {finished.ttft_s:.1f} s; "
        f"{finished.decode_tokens_per_s:.0f} tokens/s, attending to {finished.sparsity:.1%} of "
        "them."
    )


def _report(
    conversation: "Conversation", answer: "Answer", load_s: float, prefill_s: float
) -> dict[str, Any]:
    """Return the object that ``--json`` prints.

    Times are in seconds; the time to the first token includes the prefill of the documents.
    """
    from hga_chat.cli.listing import conversation_as_object

    engine, finished = conversation.engine, answer.finished
    memory, routing = engine.memory(), engine.config.routing
    listing = conversation_as_object(conversation)
    for document in listing["documents"]:
        del document["format"]  # not part of this command's JSON
    return {
        "answer": answer.text,
        **({"thought": answer.thought} if answer.thought else {}),
        "finish_reason": finished.reason,
        "model": {"name": engine.model_name, "fingerprint": engine.fingerprint},
        "documents": listing["documents"],
        "skipped": listing["skipped"],
        "sources": [source.as_object() for source in answer.sources],
        **({"limited_to": [*answer.scope.limited_to]} if answer.scope.limited_to else {}),
        **({"without": [*answer.scope.without]} if answer.scope.without else {}),
        "usage": {
            "document_tokens": listing["tokens"],
            "prompt_tokens": finished.prompt_tokens,
            "completion_tokens": finished.completion_tokens,
        },
        "timing": {
            "load_s": round(load_s, 3),
            "prefill_s": round(prefill_s + finished.prefill_s, 3),
            "ttft_s": round(prefill_s + finished.ttft_s, 3),
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
