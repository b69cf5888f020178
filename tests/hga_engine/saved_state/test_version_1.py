"""Sessions that were saved in format 1 go on without a new prefill."""

import json
import zlib
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from hga_engine.config import CacheConfig, EngineConfig, resolve
from hga_engine.errors import SavedStateError
from hga_engine.opening import LoadedModel, open_engine
from hga_engine.saved_state import fork, read_info
from hga_engine.saved_state.manifest import FORMAT_VERSION, MANIFEST
from tests.support.saved_sessions import answers, grow, saved
from tests.support.tiny_engine import LLAMA, PARTIAL, FakeTokenizer, make_engine, random_weights

pytestmark = pytest.mark.usefixtures("single_thread")

# What the version that wrote format 1 saved of the session of ``saved``.
WRITTEN = """{
 "format": 1,
 "model_name": "tiny",
 "fingerprint": "0000000000000000000000000000000000000000000000000000000000000000",
 "router": {
  "router": "hga",
  "chunk_size": 8,
  "group_size": 4,
  "gpu_group_size": 16,
  "sink_tokens": 8,
  "recent_tokens": 0,
  "decode_budget": 3,
  "prefill_group_size": 8,
  "prefill_budget": 2,
  "prefill_block": 8,
  "scoring_stride": 2,
  "gpu_prefill_group_size": 16,
  "gpu_prefill_budget": 136,
  "gpu_prefill_block": 64,
  "gpu_scoring_stride": 4,
  "paper_group_size": 8,
  "paper_kept_chunks": 3,
  "traced_tokens": 4
 },
 "geometry": {
  "layers": 3,
  "kv_heads": 2,
  "head_dim": 16,
  "group_size": 4,
  "context": 256,
  "dtype": "float64",
  "page_bytes": 1024
 },
 "tokens": 90,
 "stored": 89,
 "generation": 1,
 "token_file": {
  "name": "tokens.1.safetensors",
  "bytes": 7248,
  "crc32": 236495833
 },
 "index": null,
 "crc32": 496560894
}"""


def checksum(body: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(body, sort_keys=True, separators=(",", ":")).encode())


def as_version_1(folder: Path, **router: Any) -> None:
    """Put the written manifest over a state, naming the files that are there.

    Args:
        folder: of the state.
        router: fields of the router that differ from what was written.
    """
    now = json.loads((folder / MANIFEST).read_text())
    body = json.loads(WRITTEN)
    assert now["geometry"] == body["geometry"] | {"rope": "unscaled"}
    for name in ("tokens", "stored"):
        assert now[name] == body[name]
    # Checksums depend on how the machine rounds; an index so short is saved in tests alone.
    body |= {name: now[name] for name in ("token_file", "index")}
    body["router"] |= router
    del body["format"], body["crc32"]
    (folder / MANIFEST).write_text(json.dumps({"format": 1, **body, "crc32": checksum(body)}))


def test_the_written_manifest_is_whole() -> None:
    body = json.loads(WRITTEN)
    del body["format"]
    written = body.pop("crc32")
    assert written == checksum(body)


def test_a_session_goes_on_and_is_saved_in_the_new_format(folder: Path) -> None:
    tokens = saved(folder)
    as_version_1(folder)
    engine = make_engine(saved_dir=folder)
    assert engine.token_ids == tokens
    assert answers(engine) == answers(grow(make_engine()))
    engine.save()
    engine.close()
    assert json.loads((folder / MANIFEST).read_text())["format"] == FORMAT_VERSION
    assert make_engine(saved_dir=folder).token_ids == engine.token_ids


def test_the_routing_is_that_of_today(folder: Path) -> None:
    saved(folder)
    as_version_1(folder)
    info = read_info(folder)
    assert info is not None
    assert info.routing == asdict(replace(PARTIAL, decode_budget=3, prefill_budget=2))


def test_a_copy_has_the_new_format(folder: Path, tmp_path: Path) -> None:
    saved(folder)
    as_version_1(folder)
    fork(folder, tmp_path / "copy", 50)
    assert json.loads((tmp_path / "copy" / MANIFEST).read_text())["format"] == FORMAT_VERSION
    assert make_engine(saved_dir=tmp_path / "copy").num_tokens == 50


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_the_default_router_of_either_device_is_known(folder: Path, device: str) -> None:
    saved(folder)
    own = asdict(resolve(EngineConfig(), device).routing)
    own["router"], own["traced_tokens"] = own.pop("kind"), own.pop("trace_bin_tokens")
    own["paper_kept_chunks"] = own.pop("paper_chunks")
    as_version_1(folder, **own)
    info = read_info(folder)
    assert info is not None
    assert info.routing == asdict(resolve(EngineConfig(), device).routing)


@pytest.mark.parametrize("router", [{"recent_tokens": 64}, {"decode_budget": 7}])
def test_another_routing_is_refused_where_a_session_is_opened(
    folder: Path, router: dict[str, int]
) -> None:
    tokenizer: Any = FakeTokenizer()
    weights = random_weights(LLAMA, dtype=torch.bfloat16)
    model = LoadedModel(weights, tokenizer, "tiny", "0" * 64)
    config = EngineConfig(cache=CacheConfig(256, saved_dir=folder))
    engine = grow(open_engine(model, config))
    engine.save()
    engine.close()
    body = json.loads((folder / MANIFEST).read_text())
    body["routing"] |= router
    del body["format"], body["crc32"]
    (folder / MANIFEST).write_text(json.dumps({"format": 2, **body, "crc32": checksum(body)}))
    with pytest.raises(SavedStateError, match="on another device or by another version"):
        open_engine(model, config)
