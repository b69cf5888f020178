"""Damaged GGUF files are refused at once, with what is wrong and before weights take memory."""

import random
import struct
import time

import gguf
import numpy as np
import pytest
import torch

from hga_engine.errors import DamagedWeightsError, ModelFileError
from hga_engine.model import stream
from hga_engine.model.files import ModelFiles
from hga_engine.model.gguf import GgufSource
from hga_engine.model.gguf_file import GgufFile
from hga_engine.model.gguf_header import read_header
from hga_engine.model.load import load_model
from tests.support import packed_gguf

VERSION, TENSORS, FIELDS = 4, 8, 16
"""Offsets in a file."""


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """The bytes of a sound file."""
    path = tmp_path_factory.mktemp("sound") / "model.gguf"
    packed_gguf.write(path)
    return path.read_bytes()


@pytest.fixture
def refused(tmp_path, monkeypatch):
    """Asserts that loading bytes fails with certain words before any memory is allocated."""
    monkeypatch.setattr(stream, "allocate", None)

    def check(data, words, error=ModelFileError):
        path = tmp_path / "model.gguf"
        path.write_bytes(data)
        began = time.monotonic()
        with pytest.raises(error, match=rf"model\.gguf: .*{words}"):
            load_model(ModelFiles("test", None, path), torch.bfloat16)
        assert time.monotonic() - began < 10

    return check


def changed(data, offset, layout, value):
    damaged = bytearray(data)
    struct.pack_into(layout, damaged, offset, value)
    return bytes(damaged)


def entry(data, name, skipped):
    """Offset in the entry of a tensor, ``skipped`` bytes behind its name."""
    marked = struct.pack("<Q", len(name)) + name.encode()
    return data.index(marked) + len(marked) + skipped


def value_of(data, key):
    """Offset of the value of a metadata field that is a number."""
    return data.index(key.encode()) + len(key) + 4


MATRIX = "blk.1.attn_output.weight"
DIMENSIONS, FIRST, SECOND, KIND, OFFSET = 0, 4, 12, 20, 24
"""Offsets in the entry of a matrix, behind its name."""


def test_a_sound_file_is_parsed_as_by_the_library(sound, tmp_path):
    path = tmp_path / "model.gguf"
    path.write_bytes(sound)
    found = read_header(path)
    library = gguf.GGUFReader(path)
    assert {name: found.tensors[name].offset for name in found.tensors} == {
        tensor.name: tensor.data_offset for tensor in library.tensors
    }
    for tensor in library.tensors:
        mine = found.tensors[tensor.name]
        assert mine.shape == tuple(reversed(tensor.shape.tolist()))
        assert (mine.size, mine.kind) == (tensor.n_bytes, tensor.tensor_type)
    file = GgufFile(path)
    for key, field in library.fields.items():
        if not key.startswith("GGUF."):
            assert file._contents(key) == field.contents()


def test_other_files_versions_and_byte_orders(sound, refused):
    refused(b"", "is empty")
    refused(b"PK\3\4" + sound[4:], "is not a GGUF file")
    refused(changed(sound, VERSION, "<I", 9), "is GGUF version 9; versions 2 and 3")
    refused(changed(sound, VERSION, ">I", 3), "is a big-endian GGUF file")


@pytest.mark.parametrize("count", [2**16, 2**32, 2**63 - 1, 2**64 - 1])
def test_counts_that_the_file_cannot_hold(sound, refused, count):
    for offset in (TENSORS, FIELDS):
        refused(changed(sound, offset, "<Q", count), "damaged", DamagedWeightsError)
    tokens = value_of(sound, "tokenizer.ggml.tokens")
    for offset in (tokens + 4, tokens + 12):  # entries of the array, bytes of the first
        refused(changed(sound, offset, "<Q", count), "damaged", DamagedWeightsError)


def test_unknown_types_of_metadata(sound, refused):
    kind = value_of(sound, "llama.block_count") - 4
    refused(changed(sound, kind, "<I", 77), r"llama\.block_count has the unknown type 77")
    kind = value_of(sound, "tokenizer.ggml.tokens")
    refused(changed(sound, kind, "<I", 77), r"tokens has entries of the unknown type 77")


@pytest.mark.parametrize(
    ("skipped", "layout", "value", "words"),
    [
        (DIMENSIONS, "<I", 0, "has 0 dimensions"),
        (DIMENSIONS, "<I", 2**32 - 1, "has 4294967295 dimensions"),
        (FIRST, "<Q", 0, r"has shape \[256, 0\]"),
        (FIRST, "<Q", 100, r"of type Q4_K has shape \[256, 100\]"),
        (FIRST, "<Q", 2**63, "truncated"),
        (SECOND, "<Q", 2**63, "truncated"),
        (SECOND, "<Q", 512, "overlap"),
        (SECOND, "<Q", 128, r"has shape \[128, 256\], not \[256, 256\]"),
        (KIND, "<I", 4, "stored as type 4 of ggml, which is not known"),
        (KIND, "<I", 2**32 - 1, "stored as type 4294967295 of ggml"),
        (KIND, "<I", 8, "overlap"),  # Q8_0 takes more bytes
        (OFFSET, "<Q", 7, "is not aligned"),
        (OFFSET, "<Q", 0, "overlap"),
        (OFFSET, "<Q", 2**40, rf"is truncated: tensor {MATRIX} ends at byte 1,099,"),
        (OFFSET, "<Q", 2**64 - 32, "is truncated"),
    ],
)
def test_entries_that_lie(sound, refused, skipped, layout, value, words):
    refused(changed(sound, entry(sound, MATRIX, skipped), layout, value), words)


def test_a_type_that_nothing_dequantises(sound, refused):
    # The last tensor, so that there is room for its larger blocks.
    last = "blk.1.ffn_down.weight"
    data = changed(sound, entry(sound, last, KIND), "<I", gguf.GGMLQuantizationType.Q8_K)
    refused(data + bytes(len(sound)), f"tensor {last} is stored as Q8_K, which is not supported")


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("llama.block_count", "count 1,000,000,000 layers, but it has 21 tensors"),
        ("llama.embedding_length", "has shape"),
        ("llama.feed_forward_length", "has shape"),
        ("llama.attention.head_count", "do not fit|has shape"),
        ("llama.attention.key_length", "not supported|has shape"),
    ],
)
def test_metadata_that_lie_about_sizes(sound, refused, key, words):
    refused(changed(sound, value_of(sound, key), "<I", 1_000_000_000), words)


def test_a_lying_number_of_experts(tmp_path, refused):
    path = tmp_path / "experts.gguf"
    packed_gguf.write(path, "qwen3moe")
    data = path.read_bytes()
    data = changed(data, value_of(data, "qwen3moe.expert_count"), "<I", 1_000_000_000)
    refused(data, "count 1,000,000,000 experts, its tensors have 3")


@pytest.mark.parametrize("alignment", [0, 3, 48, 2**32 - 1])
def test_alignments_that_are_none(alignment, tmp_path, refused):
    path = tmp_path / "aligned.gguf"
    packed_gguf.write(path, metadata=[("add_uint32", "general.alignment", 64)])
    data = path.read_bytes()
    data = changed(data, value_of(data, "general.alignment"), "<I", alignment)
    refused(data, f"alignment is {alignment}")


def test_names_that_occur_twice(sound, refused):
    name, other = b"blk.0.attn_k.weight", b"blk.0.attn_v.weight"
    refused(sound.replace(other, name), r"has the tensor blk\.0\.attn_k\.weight twice")
    key, other = b"llama.attention.key_length", b"llama.attention.head_count"
    refused(sound.replace(key, other), r"has llama\.attention\.head_count twice")


def test_names_that_are_no_text(sound, refused):
    refused(sound.replace(b"blk.0.attn_k.", b"blk.0.attn_\xff."), "name of a tensor is not UTF-8")
    refused(sound.replace(b"general.arch", b"general.\xff\xff\xff\xff"), "key .* is not UTF-8")


def test_a_file_that_ends_within_its_tensors_names_the_first(sound, refused):
    refused(sound[:-1000], r"truncated: tensor \S+ ends at byte [\d,]+, the file at [\d,]+\.$")


def test_damage_anywhere_in_the_header_is_an_error_or_harmless(sound, tmp_path):
    start = min(tensor.offset for tensor in read_header(write(tmp_path, sound)).tensors.values())
    chance = random.Random(7)
    refused = 0
    for _ in range(1500):
        data = bytearray(sound)
        for _ in range(chance.choice([1, 1, 2, 16])):
            at = chance.randrange(start)
            data[at] = chance.choice([0, 1, 0x7F, 0xFF, data[at] ^ 1 << chance.randrange(8)])
        try:
            GgufSource(GgufFile(write(tmp_path, data)))
        except ModelFileError:
            refused += 1
    assert refused > 500


def test_a_file_cut_anywhere_is_refused(sound, tmp_path):
    start = min(tensor.offset for tensor in read_header(write(tmp_path, sound)).tensors.values())
    chance = random.Random(8)
    lengths = [0, 3, 4, 8, 16, 24, len(sound) - 1, *(chance.randrange(start) for _ in range(200))]
    for length in lengths:
        with pytest.raises(ModelFileError, match=r"model\.gguf: "):
            GgufFile(write(tmp_path, sound[:length]))


def test_random_bytes_behind_a_sound_beginning(sound, tmp_path):
    rng = np.random.default_rng(9)
    for length in (24, 100, 300, 700):
        for _ in range(30):
            data = sound[:length] + rng.integers(0, 256, 3000, dtype=np.uint8).tobytes()
            with pytest.raises(ModelFileError):
                GgufFile(write(tmp_path, data))


def write(folder, data):
    path = folder / "model.gguf"
    path.write_bytes(data)
    return path
