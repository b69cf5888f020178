"""The tiered store against a model that holds everything in one tensor per layer."""

import os
import re
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hga_engine.config import CacheConfig, ModelConfig, Routing
from hga_engine.errors import ContextFullError, KVStoreError, StorageError
from hga_engine.kv_store.store import KVStore
from hga_engine.kv_store.tiered import TieredKVStore

LAYERS, HEAD_DIM, CONTEXT = 3, 4, 200
ROUTER = Routing(
    chunk_size=8,
    group_size=4,
    prefill_group_size=8,
    prefill_block=8,
    paper_group_size=8,
    sink_tokens=8,
    decode_budget=4,
    prefill_budget=2,
)
GROUPS = CONTEXT // 4


def geometry(kv_heads: int, head_dim: int = HEAD_DIM) -> ModelConfig:
    return ModelConfig(
        architecture="llama",
        num_layers=LAYERS,
        hidden_size=16,
        num_query_heads=kv_heads,
        num_kv_heads=kv_heads,
        head_dim=head_dim,
        intermediate_size=16,
        vocab_size=32,
        max_positions=CONTEXT,
        rope_base=10_000.0,
        rms_norm_eps=1e-5,
        tie_embeddings=True,
    )


def page_bytes(dtype: torch.dtype) -> int:
    return 2 * ROUTER.group_size * HEAD_DIM * dtype.itemsize


def make_store(
    kv_heads: int = 2,
    pages_per_layer: int | None = None,
    dtype: torch.dtype = torch.float32,
    directory: Path | None = None,
) -> TieredKVStore:
    budget = None if pages_per_layer is None else pages_per_layer * LAYERS * page_bytes(dtype)
    cache = CacheConfig(context=CONTEXT, host_budget_bytes=budget)
    with pytest.MonkeyPatch.context() as patch:
        if directory is not None:
            patch.setattr(tempfile, "tempdir", str(directory))
        return TieredKVStore(geometry(kv_heads), ROUTER, cache, dtype)


def tokens(count: int, kv_heads: int = 2, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    both = torch.randn(2, count, kv_heads, HEAD_DIM, generator=generator)
    return both[0], both[1]


@dataclass
class Plain:
    """All K/V of one layer: [tokens, kv_heads, head_dim]."""

    keys: torch.Tensor
    values: torch.Tensor


def check_fetch(store: TieredKVStore, plain: Plain, layer: int, groups: torch.Tensor) -> None:
    """Check that every fetched page holds the tokens of its group that exist."""
    slots = store.fetch(layer, groups)
    assert slots.dtype == torch.int32
    assert slots.shape == groups.shape
    assert torch.equal(slots < 0, groups < 0)
    pool = store.pool(layer)
    flat_groups = groups.flatten(0, -3) if groups.dim() > 2 else groups[None]
    for row, row_slots in zip(flat_groups, slots.reshape(flat_groups.shape), strict=True):
        for head in range(row.shape[0]):
            for group, slot in zip(row[head].tolist(), row_slots[head].tolist(), strict=True):
                if group < 0:
                    continue
                expected = slice(group * 4, min(group * 4 + 4, len(plain.keys)))
                count = expected.stop - expected.start
                assert torch.equal(pool[slot, 0, :count], plain.keys[expected, head])
                assert torch.equal(pool[slot, 1, :count], plain.values[expected, head])


def check_keys(store: TieredKVStore, plain: Plain, layer: int, start: int, end: int) -> None:
    assert torch.equal(store.keys(layer, start, end), plain.keys[start:end].transpose(0, 1))


step = st.tuples(
    st.sampled_from(["append", "append", "append", "fetch", "fetch", "truncate", "open", "keys"]),
    st.integers(0, LAYERS - 1),
    st.integers(0, 2**31 - 1),
)


@settings(max_examples=120, deadline=None)
@given(
    kv_heads=st.integers(1, 8),
    pages=st.sampled_from([None, 0, 1, 5, 12, 40, 10_000]),
    dtype=st.sampled_from([torch.bfloat16, torch.float32]),
    steps=st.lists(step, max_size=25),
)
def test_it_equals_a_store_that_holds_everything_in_memory(
    kv_heads: int, pages: int | None, dtype: torch.dtype, steps: list[tuple[str, int, int]]
) -> None:
    store = make_store(kv_heads, pages, dtype)
    empty = torch.empty(0, kv_heads, HEAD_DIM, dtype=dtype)
    plain = [Plain(empty, empty) for _ in range(LAYERS)]
    is_open: int | None = None
    for action, layer, seed in steps:
        generator = torch.Generator().manual_seed(seed)

        def draw(bound: int, generator: torch.Generator = generator) -> int:
            return int(torch.randint(bound, (1,), generator=generator))

        held = plain[layer]
        length = len(held.keys)
        if action == "append":
            count = draw(min(CONTEXT - length, 60) + 1)
            both = torch.randn(2, count, kv_heads, HEAD_DIM, generator=generator).to(dtype)
            store.append(layer, both[0], both[1])
            held.keys = torch.cat([held.keys, both[0]])
            held.values = torch.cat([held.values, both[1]])
        elif action == "fetch":
            shape = (draw(3) + 1, kv_heads, draw(12) + 1)
            groups = torch.randint(-1, -(-length // 4), shape, generator=generator)
            check_fetch(store, held, layer, groups.to(torch.int32))
        elif action == "truncate":
            keep = draw(CONTEXT)
            store.truncate(keep)
            for each in plain:
                each.keys, each.values = each.keys[:keep], each.values[:keep]
        elif action == "open":
            if is_open is None:
                store.open_layer(layer)
                is_open = layer
            else:
                store.close_layer(is_open)
                is_open = None
        else:
            start = draw(length + 1)
            check_keys(store, held, layer, start, start + draw(length - start + 1))

        for number, each in enumerate(plain):
            assert store.length(number) == len(each.keys)
        usage = store.usage()
        stored = sum(kv_heads * -(-len(each.keys) // 4) for each in plain) * page_bytes(dtype)
        assert usage.host_bytes <= stored
        assert usage.disk_bytes <= stored
        assert usage.host_bytes + usage.disk_bytes >= stored
        if pages is None:
            assert (usage.host_bytes, usage.disk_bytes) == (stored, 0)
    if is_open is not None:
        store.close_layer(is_open)
    for layer, each in enumerate(plain):
        check_keys(store, each, layer, 0, len(each.keys))
        everything = torch.arange(-(-len(each.keys) // 4), dtype=torch.int32)
        check_fetch(store, each, layer, everything.expand(kv_heads, -1))
    store.close()


def test_it_is_a_kv_store() -> None:
    store: KVStore = make_store()
    store.close()


def test_without_a_budget_consecutive_groups_of_a_head_are_adjacent() -> None:
    store = make_store(kv_heads=2)
    store.append(0, *tokens(30))
    groups = torch.tensor([[0, 3, -1], [1, 2, 7]], dtype=torch.int32)
    assert store.fetch(0, groups).tolist() == [[0, 3, -1], [GROUPS + 1, GROUPS + 2, GROUPS + 7]]
    assert store.pool(0).shape == (2 * GROUPS, 2, 4, HEAD_DIM)
    assert store.usage().disk_capacity_bytes == 0


def test_usage_counts_pages_of_each_tier() -> None:
    # 2 heads of 10 groups are 20 pages: 6 in memory, 14 on disk.
    store = make_store(kv_heads=2, pages_per_layer=6)
    store.open_layer(1)
    store.append(1, *tokens(40))
    page = page_bytes(torch.float32)
    assert page == 128
    assert (store.usage().host_bytes, store.usage().disk_bytes) == (20 * page, 0)
    store.close_layer(1)
    usage = store.usage()
    assert (usage.host_bytes, usage.disk_bytes) == (6 * page, 14 * page)
    assert usage.host_capacity_bytes == 6 * LAYERS * page
    assert usage.disk_capacity_bytes == 2 * GROUPS * LAYERS * page
    store.truncate(0)
    assert (store.usage().host_bytes, store.usage().disk_bytes) == (0, 0)


def test_closing_a_layer_keeps_sinks_and_the_newest_groups_resident() -> None:
    # The sinks are 2 groups per head, 4 pages; 2 more pages are the newest group.
    store = make_store(kv_heads=2, pages_per_layer=6)
    store.open_layer(0)
    store.append(0, *tokens(40))
    store.close_layer(0)
    store.fetch(0, torch.tensor([[0, 1, 9], [0, 1, 9]], dtype=torch.int32))
    assert (store.usage().page_hits, store.usage().page_misses) == (6, 0)
    store.fetch(0, torch.tensor([[5, -1], [-1, -1]], dtype=torch.int32))
    assert (store.usage().page_hits, store.usage().page_misses) == (6, 1)


def test_the_least_recently_used_page_is_evicted() -> None:
    store = make_store(kv_heads=1, pages_per_layer=3)
    store.append(0, *tokens(20, kv_heads=1))

    def fetch(*groups: int) -> tuple[int, int]:
        before = store.usage()
        store.fetch(0, torch.tensor([groups], dtype=torch.int32))
        after = store.usage()
        return after.page_hits - before.page_hits, after.page_misses - before.page_misses

    assert fetch(2, 3, 4) == (3, 0)
    assert fetch(2) == (1, 0)
    assert fetch(4) == (1, 0)
    assert fetch(0) == (0, 1)  # in the slot of 3
    assert fetch(2, 4, 0) == (3, 0)
    assert fetch(3) == (0, 1)


def test_a_page_is_written_to_disk_once(monkeypatch: pytest.MonkeyPatch) -> None:
    store = make_store(kv_heads=1, pages_per_layer=2)
    store.append(0, *tokens(40, kv_heads=1))
    assert store.usage().disk_bytes == 8 * page_bytes(torch.float32)
    written = []
    real = os.pwrite

    def pwrite(file: int, data: memoryview, offset: int) -> int:
        written.append(len(data))
        return real(file, data, offset)

    monkeypatch.setattr(os, "pwrite", pwrite)
    for _ in range(3):
        for group in range(10):
            store.fetch(0, torch.tensor([[group]], dtype=torch.int32))
    assert sum(written) == 2 * page_bytes(torch.float32)  # the two that were never evicted before
    assert store.usage().disk_bytes == 10 * page_bytes(torch.float32)


def test_a_fetch_may_exceed_the_share_until_another_layer_is_used() -> None:
    store = make_store(kv_heads=2, pages_per_layer=4)
    plain = Plain(*tokens(80))
    for layer in range(2):
        store.append(layer, plain.keys, plain.values)
    everything = torch.arange(20, dtype=torch.int32).expand(2, -1)
    check_fetch(store, plain, 0, everything)
    check_fetch(store, plain, 1, everything)
    one = torch.tensor([[3], [3]], dtype=torch.int32)
    check_fetch(store, plain, 2, torch.full_like(one, -1))
    assert store.usage().host_bytes == 2 * 4 * page_bytes(torch.float32)
    assert store.pool(0).shape[0] == store.pool(1).shape[0] == 4


def test_the_open_group_is_resident_and_not_on_disk() -> None:
    store = make_store(kv_heads=1, pages_per_layer=1)
    keys, values = tokens(50, kv_heads=1)
    store.append(0, keys[:21], values[:21])  # five full groups and one token
    assert store.usage().disk_bytes == 5 * page_bytes(torch.float32)
    check_fetch(store, Plain(keys[:21], values[:21]), 0, torch.tensor([[5]], dtype=torch.int32))
    assert store.usage().page_misses == 0


def test_a_truncated_group_is_writable_again() -> None:
    store = make_store(kv_heads=2, pages_per_layer=2)
    keys, values = tokens(40)
    store.append(0, keys, values)
    store.truncate(14)
    other_keys, other_values = tokens(10, seed=1)
    store.append(0, other_keys, other_values)
    plain = Plain(torch.cat([keys[:14], other_keys]), torch.cat([values[:14], other_values]))
    check_keys(store, plain, 0, 0, 24)
    check_fetch(store, plain, 0, torch.arange(6, dtype=torch.int32).expand(2, -1))


def test_a_full_context_is_reported() -> None:
    store = make_store()
    store.append(0, *tokens(CONTEXT - 1))
    with pytest.raises(ContextFullError) as error:
        store.append(0, *tokens(3))
    assert (error.value.tokens, error.value.held, error.value.context) == (3, 199, 200)
    assert store.length(0) == CONTEXT - 1
    store.append(0, *tokens(1))


def test_misuse_is_refused() -> None:
    store = make_store(pages_per_layer=4)
    store.append(0, *tokens(5))
    with pytest.raises(RuntimeError):
        store.close_layer(0)
    store.open_layer(0)
    with pytest.raises(RuntimeError):
        store.open_layer(1)
    store.close_layer(0)
    with pytest.raises(IndexError):
        store.fetch(0, torch.tensor([[2], [0]], dtype=torch.int32))
    with pytest.raises(IndexError):
        store.keys(0, 0, 6)
    with pytest.raises(ValueError, match="tokens"):
        store.truncate(-1)


def disk_file() -> int:
    """Return the descriptor of the store's file: open, not empty, and without a name."""
    for entry in os.listdir("/proc/self/fd"):
        try:
            status = os.fstat(int(entry))
        except OSError:
            continue
        if stat.S_ISREG(status.st_mode) and status.st_nlink == 0 and status.st_size:
            target = os.readlink(f"/proc/self/fd/{entry}")
            if target.startswith(str(DISK_DIR)):
                return int(entry)
    raise AssertionError("the store holds no unnamed file")


DISK_DIR = Path(tempfile.gettempdir()) / f"hga-chat-test-{os.getpid()}"


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="reads /proc")
@pytest.mark.parametrize("how", ["flipped bit", "cut short"])
def test_a_damaged_page_is_detected(how: str) -> None:
    store = make_store(kv_heads=2, pages_per_layer=2, directory=DISK_DIR)
    try:
        store.append(1, *tokens(40))
        file = disk_file()
        if how == "cut short":
            os.truncate(file, 10)
        else:
            # Layer 1, head 0, group 2; its third byte.
            offset = (2 * GROUPS + 2) * page_bytes(torch.float32) + 2
            byte = os.pread(file, 1, offset)
            os.pwrite(file, bytes([byte[0] ^ 1]), offset)
        flipped = "K/V of layer 1, KV head 0, group 2 .* is damaged"
        named = flipped if how == "flipped bit" else "is damaged|Cannot read K/V"
        with pytest.raises(KVStoreError, match=named):
            store.fetch(1, torch.tensor([[2], [-1]], dtype=torch.int32))
        with pytest.raises(KVStoreError, match=named):
            store.keys(1, 8, 9)
        if how == "flipped bit":
            store.fetch(1, torch.tensor([[3], [3]], dtype=torch.int32))
            with pytest.raises(KVStoreError, match=named):
                store.truncate(10)
            assert store.length(1) == 8
            check_keys(store, Plain(*(t[:8] for t in tokens(40))), 1, 0, 8)
    finally:
        store.close()
        DISK_DIR.rmdir()


def test_a_full_disk_is_reported_and_leaves_the_store_unchanged(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    resource = pytest.importorskip("resource")
    store = make_store(kv_heads=2, pages_per_layer=8, directory=tmp_path)
    plain = Plain(*tokens(16))
    store.append(0, plain.keys, plain.values)  # exactly the share
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (64, hard))
        with pytest.raises(
            StorageError, match=re.escape(f"Cannot write K/V in {tmp_path}")
        ) as error:
            store.append(0, *tokens(40, seed=1))
        assert (error.value.is_full, error.value.is_saved) == (True, False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert store.length(0) == 16
    check_keys(store, plain, 0, 0, 16)
    more = tokens(40, seed=1)
    store.append(0, *more)
    whole = Plain(torch.cat([plain.keys, more[0]]), torch.cat([plain.values, more[1]]))
    check_fetch(store, whole, 0, torch.arange(14, dtype=torch.int32).expand(2, -1))


def test_a_full_disk_while_closing_a_layer_loses_no_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    store = make_store(kv_heads=2, pages_per_layer=4)
    plain = Plain(*tokens(40))
    store.open_layer(0)
    store.append(0, plain.keys, plain.values)

    def full(file: int, data: memoryview, offset: int) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(StorageError, match="No space left on device"):
            store.close_layer(0)
        check_keys(store, plain, 0, 0, 40)
        store.truncate(8)
        check_keys(store, plain, 0, 0, 8)
    store.append(1, *tokens(4))
    assert store.pool(0).shape[0] == 4


def test_the_disk_file_is_private_and_leaves_nothing_behind(tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    store = make_store(pages_per_layer=2, directory=folder)
    store.append(0, *tokens(40))
    for path in folder.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    if os.name == "posix":
        assert list(folder.iterdir()) == []
    store.close()
    store.close()
    assert list(folder.iterdir()) == []


def test_an_unusable_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(KVStoreError, match=r"Cannot create a K/V file in .*file"):
        make_store(pages_per_layer=2, directory=tmp_path / "file" / "cache")
