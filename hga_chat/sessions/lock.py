"""The lock that lets one process at a time open a session."""

import errno
import fcntl
import os
from pathlib import Path

from hga_chat.sessions.types import SessionInUseError, SessionMissingError


class SessionLock:
    """A locked file that names its process; the system unlocks it when the process ends."""

    def __init__(self, path: Path, *, is_use: bool = True) -> None:
        """Take the lock.

        Args:
            path: the lock file, created if missing.
            is_use: whether this counts as a use of the session.

        Raises:
            SessionInUseError: another process holds the lock.
            SessionMissingError: the session has just been removed.
            OSError: the file cannot be opened.
        """
        self._opened = _open(path)
        try:
            fcntl.flock(self._opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(self._opened).st_nlink == 0:
                raise SessionMissingError(f"Session {path.parent.name} has just been removed.")
            if is_use:
                self._sign()
        except BlockingIOError:
            holder = os.pread(self._opened, 32, 0).decode("ascii", "replace").strip()
            os.close(self._opened)
            by = f" (process {holder})" if holder else ""
            raise SessionInUseError(f"Session {path.parent.name} is open elsewhere{by}.") from None
        except BaseException:
            os.close(self._opened)
            raise

    def _sign(self) -> None:
        """Write the process id into the file, which also records the time of the last use."""
        try:
            os.ftruncate(self._opened, 0)
            os.pwrite(self._opened, f"{os.getpid()}\n".encode(), 0)
        except OSError:  # a read-only session is locked all the same
            return

    def release(self) -> None:
        """Let other processes open the session."""
        if self._opened >= 0:
            os.close(self._opened)
            self._opened = -1


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno not in (errno.EROFS, errno.EACCES):
            raise
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
