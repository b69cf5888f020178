"""``sessions``: list, show, export, fork and remove saved sessions."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hga_chat.cli import completion
from hga_chat.cli.options import Json, with_settings
from hga_chat.display import local_time
from hga_chat.settings import Settings

if TYPE_CHECKING:
    from hga_chat.output import Output
    from hga_chat.sessions.store import SessionStore

app = typer.Typer(help="List, show, export, fork and remove saved sessions.", rich_markup_mode=None)
Name = Annotated[
    str,
    typer.Argument(
        metavar="SESSION",
        help="Title, file, a part of these, or an id.",
        autocompletion=completion.sessions,
    ),
]


@app.command("list")
@with_settings("disk_limit")
def list_(settings: Settings, as_json: Json = False) -> None:
    """List saved sessions with their size on disk, latest first."""
    from hga_chat.output import Output, human_bytes, table
    from hga_chat.sessions.store import SessionStore

    output, store = Output(), SessionStore(settings.disk_limit)
    sessions = [_summary(store, id_) for id_ in store.ids()]
    total = store.total_bytes()
    if as_json:
        output.json(
            {
                "sessions": sessions,
                "disk_bytes": total,
                "disk_limit_bytes": settings.disk_limit,
            }
        )
        return
    rows = [
        (
            entry["session"],
            entry["tokens"],
            entry["turns"],
            local_time(entry["updated"]),
            human_bytes(entry["disk_bytes"]),
            entry["problem"] or entry["title"],
        )
        for entry in sessions
    ]
    if rows:
        header = ("session", "tokens", "turns", "updated", "disk", "title")
        output.write(table(header, rows) + "\n\n")
    subject = "1 session takes" if len(rows) == 1 else f"{len(rows)} sessions take"
    output.write(f"{subject} {human_bytes(total)} of {human_bytes(settings.disk_limit)}\n")


@app.command("show")
def show(name: Name, as_json: Json = False) -> None:
    """Show a session's documents, questions, settings and size on disk."""
    from hga_chat.output import Output, human_bytes, table

    output, store, id_ = _find(name)
    summary = _content(store, id_)
    on_disk = store.disk_bytes(id_)
    if as_json:
        turns = [{"question": turn["question"]} for turn in summary["turns"]]
        output.json({**summary, "turns": turns, "disk_bytes": on_disk})
        return
    assert isinstance(output, Output)
    settings, model = summary["settings"], summary["model"]
    rows = [
        ("session", id_),
        ("title", summary["title"]),
        ("paths", ", ".join(summary["paths"])),
        ("model", f"{model['name']} ({model['fingerprint'][:12]})"),
        ("settings", ", ".join(f"{key} {value}" for key, value in settings.items() if value)),
        ("updated", local_time(summary["updated"])),
        ("disk", human_bytes(on_disk)),
    ]
    output.write("".join(f"{label:<9} {value}\n" for label, value in rows) + "\n")
    documents = [
        (entry["tokens"], entry["format"], entry["path"]) for entry in summary["documents"]
    ]
    output.write(table(("tokens", "format", "path"), documents) + "\n")
    for number, turn in enumerate(summary["turns"], 1):
        question = " ".join(turn["question"].split())
        output.write(("\n" if number == 1 else "") + f"{number}. {question}\n")


@app.command("export")
def export(
    name: Name,
    to: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write to this new file.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Overwrite the file if it exists.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Export questions, answers and sources as Markdown or JSON."""
    import json

    from hga_chat.errors import UsageError
    from hga_chat.sessions.export import as_markdown

    if to is not None and to.is_file() and not force:
        raise UsageError(f"{to} exists; --force overwrites it.")
    output, store, id_ = _find(name)
    if as_json:
        text = json.dumps(_content(store, id_), ensure_ascii=False, indent=2) + "\n"
    else:
        text = as_markdown(store.info(id_), store.documents(id_), store.turns(id_))
    if to is None:
        output.write(text)
    else:
        to.write_bytes(text.encode("utf-8", "replace"))


@app.command("fork")
@with_settings("disk_limit", "quiet")
def fork(
    name: Name,
    settings: Settings,
    turns: Annotated[
        int | None, typer.Option("--turns", metavar="N", help="Keep only the first N turns.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Branch a session: copy it, with all or some of its turns, and print the copy's id."""
    from hga_chat.errors import UsageError
    from hga_chat.output import Output
    from hga_chat.sessions.store import SessionStore

    output, store = Output(quiet=settings.quiet), SessionStore(settings.disk_limit)
    id_ = store.find(name)
    if turns is not None and turns < 0:
        raise UsageError("--turns must be 0 or more.")
    old = store.open(id_)
    try:
        new = store.fork(old, turns)
        try:
            count = len(new.turns)
        finally:
            new.close()
    finally:
        old.close()
    if as_json:
        output.json({"session": new.info.id, "title": new.info.title, "turns": count})
        return
    output.write(f"{new.info.id}\n")
    output.note(f"{new.info.title} is a copy of {id_} with {count} of its {len(old.turns)} turns.")


@app.command("rm")
@with_settings("quiet")
def remove(
    settings: Settings,
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SESSION",
            help="Ids or titles of sessions.",
            autocompletion=completion.sessions,
        ),
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="Remove all sessions.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="With --all: do not ask.")] = False,
    as_json: Json = False,
) -> None:
    """Remove sessions with all their saved data; on a terminal, --all asks first."""
    from hga_chat.errors import UsageError
    from hga_chat.output import Output, human_bytes
    from hga_chat.sessions.store import SessionStore

    if bool(names) == all_:
        raise UsageError("Name the sessions to remove, or use --all.")
    output, store = Output(quiet=settings.quiet), SessionStore(settings.disk_limit)
    # Look up all names before removing anything.
    ids = store.ids() if all_ else list(dict.fromkeys(store.find(name) for name in names or []))
    if all_ and ids and not yes and output.can_ask:
        sessions = "the session" if len(ids) == 1 else f"all {len(ids)} sessions"
        size = human_bytes(store.total_bytes())
        if not output.ask(f"Remove {sessions} ({size})?", default=False):
            output.note("Nothing was removed.")
            raise typer.Exit(1)
    removed = []
    for id_ in ids:
        title = store.title(id_)
        freed = store.remove(id_)
        removed.append({"session": id_, "title": title, "disk_bytes": freed})
        output.note(f"Removed {id_} ({title}), {human_bytes(freed)}.")
    if as_json:
        output.json({"removed": removed})


def _find(name: str) -> "tuple[Output, SessionStore, str]":
    from hga_chat.output import Output
    from hga_chat.sessions.store import SessionStore

    store = SessionStore(Settings.disk_limit)
    return Output(), store, store.find(name)


def _content(store: "SessionStore", id_: str) -> dict[str, Any]:
    from hga_chat.sessions.export import as_object

    return as_object(store.info(id_), store.documents(id_), store.turns(id_))


def _summary(store: "SessionStore", id_: str) -> dict[str, Any]:
    """Return a session's entry in the list; ``problem`` says if it is damaged."""
    from hga_chat.sessions.files import disk_bytes
    from hga_chat.sessions.types import SessionError

    entry: dict[str, Any] = {
        "session": id_,
        "title": None,
        "paths": [],
        "tokens": None,
        "turns": None,
        "updated": None,
        "disk_bytes": store.disk_bytes(id_),
        "kv_bytes": disk_bytes(store.kv_folder(id_)),
        "problem": None,
    }
    try:
        content = _content(store, id_)
    except SessionError as error:
        return {**entry, "problem": str(error).splitlines()[0]}
    turn_tokens = sum(len(turn.token_ids) for turn in store.turns(id_).turns)
    return {
        **entry,
        "title": content["title"],
        "paths": content["paths"],
        "tokens": content["tokens"] + turn_tokens,
        "turns": len(content["turns"]),
        "updated": content["updated"],
    }
