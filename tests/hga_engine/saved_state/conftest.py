"""Sessions of tiny engines that are saved."""

from pathlib import Path

import pytest

from hga_engine.saved_state import state


@pytest.fixture(autouse=True)
def _index_of_few_chunks(monkeypatch: pytest.MonkeyPatch, single_thread: None) -> None:
    """Tiny sessions save their index as long ones do."""
    monkeypatch.setattr(state, "_INDEX_GROWTH", 2)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the session is saved."""
    return tmp_path / "session"
