"""Descriptions of saved states, available without loading them."""

import json
import stat
import subprocess
import sys
import zlib
from dataclasses import asdict
from pathlib import Path

import pytest

from hga_engine.errors import SavedStateError
from hga_engine.saved_state import read_info
from hga_engine.saved_state.manifest import MANIFEST, read_manifest, write_manifest
from tests.support.saved_sessions import saved
from tests.support.tiny_engine import PARTIAL, make_engine

ROOT = Path(__file__).parents[3]


def test_a_folder_without_a_state_holds_none(folder: Path) -> None:
    assert read_info(folder) is None
    folder.mkdir()
    assert read_info(folder) is None
    (folder / "file").touch()
    assert read_info(folder / "file") is None
    # An engine that never saved.
    make_engine(saved_dir=folder)
    assert read_info(folder) is None


def test_it_tells_what_is_saved(folder: Path) -> None:
    tokens = saved(folder)
    info = read_info(folder)
    assert info is not None
    assert info.tokens == len(tokens) == 90
    assert (info.model_name, info.fingerprint) == ("tiny", "0" * 64)
    assert info.routing == asdict(PARTIAL)
    assert info.context == 256
    used = subprocess.run(
        ["du", "-sk", folder], capture_output=True, text=True, check=True
    ).stdout.split()[0]
    of_the_folder = folder.stat().st_blocks * 512
    assert info.disk_bytes == int(used) * 1024 - of_the_folder


def test_reading_it_needs_neither_torch_nor_numpy(folder: Path) -> None:
    saved(folder)
    code = (
        "import sys; from pathlib import Path; from hga_engine import saved_state; "
        "print(saved_state.read_info(Path(sys.argv[1])).tokens, "
        "*{'torch', 'numpy', 'safetensors'} & set(sys.modules))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, folder], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "90"


def test_a_manifest_is_plain_json_and_comes_back_as_it_was(folder: Path) -> None:
    saved(folder)
    manifest = read_manifest(folder)
    assert manifest is not None
    body = json.loads((folder / MANIFEST).read_text())
    assert body["tokens"] == manifest.tokens == 90
    for record in manifest.files():
        data = (folder / record.name).read_bytes()
        assert (record.bytes, record.crc32) == (len(data), zlib.crc32(data))
    write_manifest(folder, manifest)
    assert read_manifest(folder) == manifest
    assert stat.S_IMODE((folder / MANIFEST).stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("tokens", "kept", "chunks"), [(90, 88, 11), (88, 88, 11), (87, 84, 10), (3, 0, 0), (0, 0, 0)]
)
def test_the_beginning_of_a_state_ends_with_a_full_group(
    folder: Path, tokens: int, kept: int, chunks: int
) -> None:
    saved(folder)
    manifest = read_manifest(folder)
    assert manifest is not None
    assert manifest.index is not None
    assert (manifest.stored, manifest.index.chunks) == (89, 11)
    short = manifest.cut(tokens)
    assert (short.tokens, short.stored, short.closed_groups) == (kept, kept, kept // 4)
    assert short.index is not None
    assert short.index.chunks == chunks


@pytest.mark.parametrize("version", [0, 4, 99])
def test_another_format_is_reported(folder: Path, version: int) -> None:
    saved(folder)
    body = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps({"format": version, "anything": body}))
    with pytest.raises(
        SavedStateError, match=f"state.json: has format {version}, .* reads up to 3"
    ):
        read_info(folder)


@pytest.mark.parametrize(
    "text", ["", "{", "null", "[1]", '{"format": 1}', '{"format": true, "crc32": 0}', "[" * 100_000]
)
def test_a_damaged_manifest_is_named(folder: Path, text: str) -> None:
    folder.mkdir()
    (folder / MANIFEST).write_text(text)
    for use in (read_info, lambda folder: make_engine(saved_dir=folder)):
        with pytest.raises(SavedStateError, match=r"state.json: is damaged \("):
            use(folder)


def test_a_manifest_that_cannot_be_read_is_reported(folder: Path) -> None:
    (folder / MANIFEST).mkdir(parents=True)
    with pytest.raises(SavedStateError, match=r"state.json: cannot be read \(Is a directory\)"):
        read_info(folder)
