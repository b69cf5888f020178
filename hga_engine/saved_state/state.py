"""Save an engine's state and resume it."""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import safetensors.torch
import torch
from safetensors import SafetensorError

from hga_engine.attention.index import RoutingIndex
from hga_engine.config import PAGES, ModelConfig, RopeScaling, Routing
from hga_engine.errors import SavedStateError, StorageError
from hga_engine.kv_store.store import KVStore
from hga_engine.kv_store.tiered import TieredKVStore
from hga_engine.saved_state import token_file
from hga_engine.saved_state.manifest import (
    FileRecord,
    Geometry,
    IndexRecord,
    Manifest,
    check_file,
    create,
    damaged,
    index_name,
    read_manifest,
    remove_others,
    sync_file,
    write_file,
    write_manifest,
)

_THREADS = 2
_NO_FILE = FileRecord("", 0, 0)
_INDEX_GROWTH = 32
"""Chunks since the index was saved that are quicker to index again than to save with it."""


class SavedState:
    """The state of one session in a folder. Used by the engine's thread alone.

    Saved files are loaded and checked on separate threads; ``wait`` joins them and has to be
    called before K/V or index are used.
    """

    def __init__(
        self,
        folder: Path,
        model_name: str,
        fingerprint: str,
        routing: Routing,
        geometry: Geometry,
        store: TieredKVStore,
        index: RoutingIndex,
        used: KVStore,
    ) -> None:
        """Say where the state is and what it belongs to.

        Args:
            folder: of the state; made when it is first saved.
            model_name: for reports.
            fingerprint: of the model.
            routing: of the session.
            geometry: of the store.
            store: holds the session's K/V; its disk tier is the folder's file of pages.
            index: of the session.
            used: the engine's store: ``store``, or a tier above it.
        """
        self._used = used
        self._folder = folder
        self._model_name = model_name
        self._fingerprint = fingerprint
        self._routing = routing
        self._geometry = geometry
        self._store = store
        self._index = index
        self._manifest: Manifest | None = None
        self._intact = 0
        """Tokens of the saved state that the session still begins with."""
        self._threads: ThreadPoolExecutor | None = None
        self._work: list[Future[None]] = []

    def resume(self) -> tuple[list[int], int]:
        """Fill the empty store and index with what is saved, and begin to check it.

        Returns:
            Token ids of the session, and how many of them have K/V.

        Raises:
            SavedStateError: the state is damaged, or of another model, geometry or format.
        """
        manifest = read_manifest(self._folder)
        if manifest is None:
            return [], 0
        self._require_same(manifest)
        saved = token_file.load(self._folder, manifest)
        pages = self._folder / PAGES
        try:
            if pages.stat().st_size != self._geometry.file_bytes:
                raise damaged(pages, "its length differs")
        except OSError as error:
            raise SavedStateError(f"{pages}: cannot be read ({error.strerror}).") from error
        self._manifest, self._intact = manifest, manifest.stored
        tasks = self._store.resume(manifest.stored, saved.checksums, saved.open_pages)
        index = self._usable_index()
        if index is not None:
            self._index.count(index.chunks)
            tasks.insert(0, lambda: self._load_index(index))
        self._threads = ThreadPoolExecutor(_THREADS)
        self._work = [self._threads.submit(task) for task in tasks]
        return saved.token_ids.tolist(), manifest.stored

    def wait(self) -> None:
        """Wait until the resumed state is loaded and checked.

        Raises:
            SavedStateError: a file is damaged or cannot be read.
        """
        for future in self._work:
            future.result()
        if self._threads is not None:
            self._work = []
            self._threads.shutdown()
            self._threads = None
            for layer in range(self._geometry.layers):
                self._index.extend(layer, self._used)

    def cut(self, tokens: int) -> None:
        """Note that the session was cut to ``tokens``; what is on disk stays as it is."""
        self._intact = min(self._intact, tokens)

    def before_growth(self) -> None:
        """Make it safe for the store to write pages at any time from now on.

        Raises:
            KVStoreError: the folder cannot be written.
        """
        if self._store.spills:
            try:
                self._release()
            except OSError as error:
                raise self._failure(error) from error

    def save(self, token_ids: Sequence[int], stored: int) -> None:
        """Make the state on disk that of the session.

        Args:
            token_ids: of the session.
            stored: how many of them have K/V.

        Raises:
            SavedStateError: what was resumed turns out to be damaged.
            KVStoreError: it cannot be written; what was saved last is still whole.
        """
        self.wait()
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._release()
            self._store.write_closed()
            self._write(np.array(token_ids, np.int32), stored)
        except OSError as error:
            raise self._failure(error) from error

    def close(self) -> None:
        """Stop totals. May be called twice."""
        if self._threads is not None:
            self._threads.shutdown(cancel_futures=True)
            self._threads = None

    def _write(self, token_ids: npt.NDArray[np.int32], stored: int) -> None:
        """Write what goes beside the pages, and the manifest that names it."""
        generation = 1 if self._manifest is None else self._manifest.generation + 1
        contents = token_file.pack(
            token_ids, self._store.closed_checksums(), self._store.open_pages()
        )
        record = write_file(self._folder / token_file.name(generation), contents)
        manifest = Manifest(
            model_name=self._model_name,
            fingerprint=self._fingerprint,
            routing=asdict(self._routing),
            geometry=self._geometry,
            tokens=len(token_ids),
            stored=stored,
            generation=generation,
            token_file=record,
            index=self._saved_index(generation),
        )
        write_manifest(self._folder, manifest)
        self._manifest, self._intact = manifest, stored
        remove_others(self._folder, manifest)

    def _saved_index(self, generation: int) -> IndexRecord | None:
        """The index for the next manifest, rewritten if it has grown much."""
        index = self._usable_index()
        chunks = 0 if index is None else index.chunks
        if self._index.closed - chunks < _INDEX_GROWTH:
            return index
        path = self._folder / index_name(generation)
        with create(path):
            pass
        try:
            safetensors.torch.save_file(self._index.tensors(), path)
            path.chmod(0o600)
            record = sync_file(path)
        except (OSError, SafetensorError) as error:
            path.unlink(missing_ok=True)
            raise self._failure(error) from error
        return replace(self._no_index(), file=record, chunks=self._index.closed)

    def _release(self) -> None:
        """Stop vouching for pages that the session has cut away, so that they may be written."""
        if self._manifest is None:
            return
        shorter = self._manifest.cut(self._intact)
        if shorter.closed_groups < self._manifest.closed_groups:
            write_manifest(self._folder, shorter)
            self._manifest = shorter

    def _require_same(self, manifest: Manifest) -> None:
        """Refuse a state that this engine cannot resume."""
        if manifest.fingerprint != self._fingerprint:
            raise SavedStateError(
                f"{self._folder}: was saved with another model, {manifest.model_name} "
                f"({manifest.fingerprint[:12]}), not {self._model_name} "
                f"({self._fingerprint[:12]})."
            )
        saved, own = asdict(manifest.geometry), asdict(self._geometry)
        differing = [f"{key} {saved[key]}, not {own[key]}" for key in own if saved[key] != own[key]]
        if differing:
            raise SavedStateError(f"{self._folder}: was saved with {'; '.join(differing)}.")

    def _usable_index(self) -> IndexRecord | None:
        """The saved index, as far as it covers the session and was made by the same routing."""
        index = None if self._manifest is None else self._manifest.index
        if index is None or replace(index, file=_NO_FILE, chunks=0) != self._no_index():
            return None
        chunks = min(index.chunks, self._intact // index.chunk_size)
        return replace(index, chunks=chunks) if chunks else None

    def _no_index(self) -> IndexRecord:
        routing = self._routing
        return IndexRecord(
            _NO_FILE,
            0,
            routing.kind,
            routing.chunk_size,
            routing.paper_group_size,
            self._index.packing,
        )

    def _load_index(self, index: IndexRecord) -> None:
        path = check_file(self._folder, index.file)
        try:
            self._index.load(path, index.chunks)
        except (OSError, SafetensorError, KeyError, RuntimeError) as error:
            raise damaged(path, str(error)) from error

    def _failure(self, error: Exception) -> StorageError:
        return StorageError("The session cannot be saved", self._folder, error, is_saved=True)


def _rope(scaling: RopeScaling | None) -> str:
    """Describe what of a model's RoPE its files do not fix."""
    return "unscaled" if scaling is None else f"{scaling} ({scaling.attention_factor:.6g})"


def geometry(model: ModelConfig, routing: Routing, context: int, dtype: torch.dtype) -> Geometry:
    """The geometry of a session's K/V."""
    return Geometry(
        layers=model.num_layers,
        kv_heads=model.num_kv_heads,
        head_dim=model.head_dim,
        group_size=routing.group_size,
        context=context,
        dtype=str(dtype).removeprefix("torch."),
        rope=_rope(model.rope_scaling),
        page_bytes=2 * routing.group_size * model.head_dim * dtype.itemsize,
    )
