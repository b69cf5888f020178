"""Copying the beginning of a saved state, for a session of its own."""

import errno
import os
import zlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from hga_engine.config import PAGES
from hga_engine.errors import SavedStateError, StorageError
from hga_engine.saved_state.manifest import (
    MANIFEST,
    Geometry,
    Manifest,
    check_file,
    create,
    damaged,
    index_name,
    read_manifest,
    write_file,
    write_manifest,
)

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from hga_engine.saved_state.token_file import TokenFile

_COPY_BYTES = 8 << 20
_NOT_IN_KERNEL = (None, errno.ENOSYS, errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM)
"""Errors, None for a missing function, after which the bytes are copied here."""


def fork(source: Path, target: Path, tokens: int, context: int | None = None) -> None:
    """Copy a state's first ``tokens`` tokens, sharing blocks on disk where the system can.

    K and V of a token do not depend on the context unless RoPE is scaled by it; the copy says by
    which scaling it was made, and is refused with another.

    Args:
        source: folder of the state; no engine may be saving it meanwhile.
        target: folder of the copy; it holds no state yet.
        tokens: length of the copy, at most that of the state.
        context: tokens that the copy can hold; None: as many as the state.

    Raises:
        ValueError: the state is shorter than ``tokens``, or the context is.
        SavedStateError: there is no state, it is damaged, or ``target`` holds one already.
        KVStoreError: the copy cannot be written; nothing is left of it.
    """
    manifest = read_manifest(source)
    if manifest is None:
        raise SavedStateError(f"{source}: there is no saved state.")
    if not 0 <= tokens <= manifest.tokens:
        raise ValueError(f"the state holds {manifest.tokens} tokens, not {tokens}")
    if context is not None and context < tokens:
        raise ValueError(f"a context of {context} tokens does not hold {tokens}")
    if (target / MANIFEST).exists():
        raise SavedStateError(f"{target}: holds a saved state already.")
    from hga_engine.saved_state import token_file

    saved = token_file.load(source, manifest)
    made: list[Path] = []
    try:
        target.mkdir(mode=0o700, parents=True, exist_ok=True)
        _copy(source, target, manifest, saved, tokens, context, made)
    except OSError as error:
        for path in made:
            path.unlink(missing_ok=True)
        raise StorageError("The session cannot be copied", target, error, is_saved=True) from error
    except BaseException:
        for path in made:
            path.unlink(missing_ok=True)
        raise


def _copy(
    source: Path,
    target: Path,
    manifest: Manifest,
    saved: "TokenFile",
    tokens: int,
    context: int | None,
    made: list[Path],
) -> None:
    """Write the files of the copy, the manifest last; ``made`` tells which have been begun."""
    from hga_engine.saved_state import token_file

    stored = min(tokens, manifest.stored)
    short = manifest.cut(stored)
    if context is not None:
        short = replace(short, geometry=replace(short.geometry, context=context))
    open_pages = saved.open_pages
    made.append(target / PAGES)
    with create(target / PAGES) as pages:
        source_pages = os.open(source / PAGES, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _copy_pages(source, source_pages, pages, manifest.geometry, short)
            if short.closed_groups < manifest.closed_groups:
                open_pages = _read_pages(source, source_pages, manifest, saved, short.closed_groups)
        finally:
            os.close(source_pages)
        os.fsync(pages)
    name = token_file.name(1)
    made.append(target / name)
    data = token_file.pack(
        saved.token_ids[:tokens],
        saved.checksums[:, :, : short.closed_groups],
        open_pages if stored % manifest.geometry.group_size else open_pages[:0],
    )
    record = write_file(target / name, data)
    index = short.index
    if index is not None:
        path = check_file(source, index.file)
        index = replace(index, file=replace(index.file, name=index_name(1)))
        made.append(target / index.file.name)
        with create(made[-1]) as copy, path.open("rb", buffering=0) as original:
            _copy_range(original.fileno(), copy, 0, index.file.bytes, 0)
            os.fsync(copy)
    made.append(target / MANIFEST)
    write_manifest(
        target,
        replace(short, tokens=tokens, stored=stored, generation=1, token_file=record, index=index),
    )


def _copy_pages(source: Path, original: int, copy: int, old: Geometry, new: Manifest) -> None:
    """Copy the pages of the first groups of every layer and head to their places in the copy."""
    if os.fstat(original).st_size != old.file_bytes:
        raise damaged(source / PAGES, "its length differs")
    os.ftruncate(copy, new.geometry.file_bytes)
    for run in range(old.layers * old.kv_heads):
        start = run * old.max_groups * old.page_bytes
        to = run * new.geometry.max_groups * old.page_bytes
        _copy_range(original, copy, start, new.closed_groups * old.page_bytes, to)


def _read_pages(
    source: Path, original: int, manifest: Manifest, saved: "TokenFile", group: int
) -> "npt.NDArray[np.uint8]":
    """[layers, kv_heads, page bytes]: the pages of one group, checked."""
    import numpy as np

    geometry = manifest.geometry
    pages = np.empty((geometry.layers, geometry.kv_heads, geometry.page_bytes), np.uint8)
    for layer, head in np.ndindex(pages.shape[:2]):
        page = (layer * geometry.kv_heads + head) * geometry.max_groups + group
        data = os.pread(original, geometry.page_bytes, page * geometry.page_bytes)
        if zlib.crc32(data) != saved.checksums[layer, head, group]:
            raise damaged(source / PAGES)
        pages[layer, head] = np.frombuffer(data, np.uint8)
    return pages


def _copy_range(original: int, copy: int, offset: int, count: int, to: int) -> None:
    """Copy ``count`` bytes at ``offset`` to ``to`` in another file, in the kernel where it can."""
    end = offset + count
    while offset < end:
        step = min(end - offset, _COPY_BYTES)
        try:
            done = os.copy_file_range(original, copy, step, offset, to)
        except (AttributeError, OSError) as error:
            if getattr(error, "errno", None) not in _NOT_IN_KERNEL:
                raise
            done = os.pwrite(copy, os.pread(original, step, offset), to)
        if done == 0:
            raise OSError(errno.EIO, "a file to copy is shorter than what was saved")
        offset, to = offset + done, to + done
