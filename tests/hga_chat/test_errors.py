"""Exit codes and the advice that goes with each error of the engine."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from hga_chat.errors import SessionFullError, describe, exit_code, ways_out
from hga_chat.models.catalogue import QWEN3_30B_A3B
from hga_engine.config import CacheConfig, SessionConfig
from hga_engine.errors import (
    ContextFullError,
    DamagedPageError,
    DamagedWeightsError,
    DiskSpaceError,
    GpuMemoryError,
    HostBudgetError,
    HostMemoryError,
    LongContextError,
    ModelFileError,
    NoGpuError,
    NotANumberError,
    SavedStateError,
    StorageError,
    WeightMemoryError,
)
from hga_engine.memory import ledger
from hga_engine.prediction import Ledger

GIB = 2**30
FOLDER = Path("/cache")
FULL = OSError(28, "No space left on device")
FAILED = OSError(5, "Input/output error")
LEDGER = Ledger(
    weights=4 * GIB, index=GIB, kv_host=6 * GIB, kv_disk=0, workspace=GIB, context=65_536
)


@pytest.mark.parametrize(
    ("error", "code", "advice"),
    [
        (ContextFullError(168, 90, 256), 4, "a larger --context (now 256) or less text"),
        (SessionFullError(168, 190, 256, 90, ways_out()), 4, "/clear forgets the turns"),
        (LongContextError(9000, 4096, "why"), 2, "Use --context 4096 or less."),
        (NotANumberError(), 1, "'hga-chat models verify'"),
        (DamagedWeightsError("a.safetensors: is truncated."), 1, "Fetch the file again."),
        (NoGpuError((8, 9)), 5, "'hga-chat doctor' shows what there is; --device cpu"),
        (HostBudgetError(), 5, "Leave --host-budget out, use a smaller --context"),
        (WeightMemoryError(9 * GIB, GIB, "cpu"), 5, "Use a smaller model."),
        (WeightMemoryError(9 * GIB, GIB, "cuda"), 5, "other programs that use the GPU"),
        (HostMemoryError(LEDGER, 12 * GIB - 1), 5, "a smaller --context (now 65,536), or keep"),
        # 2 GiB are left for K/V, half of which is advised.
        (HostMemoryError(LEDGER, 8 * GIB), 5, "--host-budget 1024M."),
        (HostMemoryError(LEDGER, 6 * GIB), 5, "Use a smaller --context (now 65,536)."),
        (HostMemoryError(LEDGER, 4 * GIB), 5, "weights alone do not fit: use a smaller model."),
        (
            HostMemoryError(replace(LEDGER, kv_disk=9 * GIB), 8 * GIB),
            5,
            "a smaller --host-budget or a smaller --context",
        ),
        (
            DiskSpaceError(replace(LEDGER, kv_disk=9 * GIB), 2 * GIB),
            5,
            "Free space, use a larger --host-budget, or use a smaller --context (now 65,536).",
        ),
        (GpuMemoryError({"weights": GIB}, 2 * GIB, GIB, 4096), 5, "--context (now 4,096)"),
        (StorageError("Cannot write K/V", FOLDER, FULL, is_saved=False), 1, "set TMPDIR"),
        (StorageError("Cannot write K/V", FOLDER, FAILED, is_saved=False), 1, "Check that folder"),
        (StorageError("Cannot write K/V", FOLDER, FULL, is_saved=True), 1, "sessions rm"),
        (StorageError("Cannot write K/V", FOLDER, FAILED, is_saved=True), 1, "or use --no-save."),
        (DamagedPageError("layer 1, KV head 0, group 2", FOLDER), 1, "check the disk"),
        (SavedStateError("pages.kv: is damaged."), 1, "documents are read again when"),
    ],
)
def test_an_engine_error_is_shown_with_its_facts_and_advice(error, code, advice):
    facts, _, rest = describe(error).partition("\n")
    assert facts == str(error)
    assert advice in rest
    assert "\n" not in rest
    assert exit_code(error) == code


def test_an_error_without_advice_is_shown_as_it_is():
    error = ModelFileError("config.json: is damaged.")
    assert describe(error) == "config.json: is damaged."


def test_memory_that_ran_out_is_shown_with_advice():
    assert "--context" in describe(MemoryError())
    assert exit_code(MemoryError()) == 5


def test_a_session_fits_with_the_host_budget_that_is_advised():
    config = SessionConfig()
    plain = ledger.predict(QWEN3_30B_A3B, 29 * GIB, config, torch.bfloat16)
    available = plain.total_host - 2 * GIB
    with pytest.raises(HostMemoryError) as error:
        ledger.check(plain, available, 99 * GIB)
    budget = int(describe(error.value).rsplit(maxsplit=1)[1].rstrip("M.")) * 2**20
    advised = SessionConfig(cache=CacheConfig(host_budget_bytes=budget))
    ledger.check(
        ledger.predict(QWEN3_30B_A3B, 29 * GIB, advised, torch.bfloat16), available, 99 * GIB
    )
