"""Completion in the shell of names that this machine knows."""

from collections.abc import Iterator


def sessions(incomplete: str) -> Iterator[tuple[str, str]]:
    """Yield ids of saved sessions with their titles, and titles, that begin with what is typed."""
    from hga_chat.sessions.store import SessionStore
    from hga_chat.settings import Settings

    store = SessionStore(Settings.disk_limit)
    titles = {id_: store.title(id_) for id_ in store.ids()}
    yield from ((id_, title) for id_, title in titles.items() if id_.startswith(incomplete))
    if incomplete:
        yield from ((title, id_) for id_, title in titles.items() if title.startswith(incomplete))


def models(incomplete: str) -> Iterator[str]:
    """Yield names of models that begin with what is typed."""
    from hga_chat.models import list_models

    yield from (model.name for model in list_models() if model.name.startswith(incomplete))
