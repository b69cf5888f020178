"""GGUF weights in memory are those of the file: the same bytes, the same numbers."""

import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch

from hga_engine.errors import ModelFileError
from hga_engine.model import stream
from hga_engine.model.files import ModelFiles, fingerprint
from hga_engine.model.load import load_model, plan_weights
from hga_engine.model.placement import bytes_by_place
from hga_kernels import FORMATS, Packed, RowParts
from hga_kernels.weights import plain
from tests.support import packed_gguf
from tests.support.gguf_model import interleave

CPU = torch.device("cpu")
LLAMA, EXPERTS = "llama", "qwen3moe"
SMALL_INTEGERS = ("MXFP4", "TQ1_0", "TQ2_0")


def load(path, dtype=torch.bfloat16):
    return load_model(ModelFiles("test", None, path), dtype)


@pytest.fixture
def through_buffers(monkeypatch):
    """Read as for a GPU."""
    monkeypatch.setattr(
        stream,
        "_read_in_place",
        lambda moves, report: stream._read_through_buffers(moves, CPU, report),
    )


def expected(tensors, architecture, layer):
    """The weights of a layer in float32, put together from the library's numbers."""
    found = {
        name.removeprefix(f"blk.{layer}.").removesuffix(".weight"): packed_gguf.numbers(tensor)
        for name, tensor in tensors.items()
        if name.startswith(f"blk.{layer}.")
    }
    q, k, v = found["attn_q"], found["attn_k"], found["attn_v"]
    if architecture == LLAMA:
        # Interleaving four times 16 rows and so on is undone by the inverse order.
        q, k = (inverse(part, heads) for part, heads in ((q, 4), (k, 2)))
    suffix = "_exps" if architecture == EXPERTS else ""
    gate, up = (found[f"ffn_{part}{suffix}"] for part in ("gate", "up"))
    return {
        "qkv": np.concatenate((q, k, v)),
        "output": found["attn_output"],
        "gate_up": np.concatenate((gate, up), axis=-2),
        "down": found[f"ffn_down{suffix}"],
    }


def inverse(rows, heads):
    """Undo ``interleave``: put the rows where it took them from."""
    order = interleave(np.arange(len(rows)), heads)
    back = np.empty_like(rows)
    back[order] = rows
    return back


def check(weights, tensors, architecture):
    for layer, held in enumerate(weights.layers):
        for name, numbers in expected(tensors, architecture, layer).items():
            found = plain(getattr(held, name), torch.float32)
            torch.testing.assert_close(found, torch.from_numpy(numbers), rtol=1e-6, atol=0)
    for name, weight in (("token_embd", weights.embedding), ("output", weights.lm_head)):
        numbers = torch.from_numpy(packed_gguf.numbers(tensors[name + ".weight"]))
        torch.testing.assert_close(plain(weight, torch.float32), numbers, rtol=1e-6, atol=0)
    norm = torch.from_numpy(tensors["output_norm.weight"][1])
    torch.testing.assert_close(weights.final_norm, norm, rtol=0, atol=0)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("architecture", [LLAMA, EXPERTS])
def test_every_format_stays_as_it_is_stored(kind, architecture, tmp_path):
    path = tmp_path / "model.gguf"
    tensors = packed_gguf.write(path, architecture, lambda name: kind)
    weights = load(path)
    check(weights, tensors, architecture)
    for layer, held in enumerate(weights.layers):
        for weight in (held.qkv, held.output, held.gate_up, held.down):
            assert isinstance(weight, Packed)
            assert weight.format == kind
        # Rows keep their bytes; a projection without joined parts is the file's own.
        stored = torch.from_numpy(tensors[f"blk.{layer}.attn_output.weight"][1])
        assert torch.equal(held.output.data, stored.view(torch.uint8))
    assert weights.notes == ()


def test_weights_on_a_gpu_are_read_through_buffers(tmp_path, through_buffers, monkeypatch):
    monkeypatch.setattr(stream, "_BUFFER_BYTES", 100_000)
    path = tmp_path / "model.gguf"
    tensors = packed_gguf.write(path, EXPERTS, lambda name: "Q6_K")
    check(load(path), tensors, EXPERTS)


@pytest.mark.parametrize("architecture", [LLAMA, EXPERTS])
def test_parts_of_several_formats_lie_one_below_the_other(architecture, tmp_path):
    def kind_of(name):
        return "Q6_K" if "attn_v" in name else "F16" if "ffn_up" in name else "Q4_K"

    tensors = packed_gguf.write(tmp_path / "model.gguf", architecture, kind_of)
    weights = load(tmp_path / "model.gguf")
    check(weights, tensors, architecture)
    for layer in weights.layers:
        assert isinstance(layer.qkv, RowParts)
        assert [part.format for part in layer.qkv.parts] == ["Q4_K", "Q6_K"]
        assert [part.shape[0] for part in layer.qkv.parts] == [384, 128]
        assert [part.format for part in layer.gate_up.parts] == ["Q4_K", "F16"]


def test_plain_tensors_beside_packed_ones_lose_nothing(tmp_path):
    def kind_of(name):
        return "BF16" if "attn_k" in name else "F32" if "ffn_down" in name else "Q8_0"

    tensors = packed_gguf.write(tmp_path / "model.gguf", EXPERTS, kind_of)
    weights = load(tmp_path / "model.gguf")
    check(weights, tensors, EXPERTS)
    assert weights.dtype == torch.float32
    layer = weights.layers[0]
    assert layer.attention_norm.dtype == layer.q_norm.dtype == torch.float32
    assert layer.qkv.parts[1].dtype == torch.bfloat16
    assert layer.down.dtype == layer.expert_gate.dtype == torch.float32


@pytest.mark.parametrize("kind", SMALL_INTEGERS)
def test_small_integers_times_a_scale_become_q8_0_without_loss(kind, tmp_path):
    tensors = packed_gguf.write(
        tmp_path / "model.gguf", EXPERTS, lambda name: kind if "ffn" in name else "Q4_K"
    )
    weights = load(tmp_path / "model.gguf")
    check(weights, tensors, EXPERTS)
    assert weights.layers[0].gate_up.format == weights.layers[1].down.format == "Q8_0"
    assert weights.notes == (f"6 tensors stored as {kind} are held as Q8_0.",)


def test_other_formats_become_float32_and_that_is_said(tmp_path):
    tensors = packed_gguf.write(
        tmp_path / "model.gguf", LLAMA, lambda name: "IQ2_XS" if "1.attn_q" in name else "Q5_K"
    )
    weights = load(tmp_path / "model.gguf")
    check(weights, tensors, LLAMA)
    assert weights.layers[1].qkv.parts[0].dtype == torch.float32
    assert weights.notes == ("1 tensor stored as IQ2_XS is held as float32.",)


def test_files_without_blocks_have_the_asked_type(tmp_path):
    packed_gguf.write(tmp_path / "model.gguf", LLAMA, lambda name: "BF16")
    weights = load(tmp_path / "model.gguf")
    assert {tensor.dtype for tensor in weights.tensors()} == {torch.bfloat16}


@pytest.mark.parametrize("kind", ["Q4_K", "F32", "TQ2_0"])
def test_planned_bytes_are_those_in_memory(kind, tmp_path):
    path = tmp_path / "model.gguf"
    tensors = packed_gguf.write(path, EXPERTS, lambda name: kind if "ffn" in name else "Q6_K")
    files = ModelFiles("test", None, path)
    planned = plan_weights(files, torch.bfloat16, CPU)
    assert planned.bytes() == load(path).bytes()
    if kind != "TQ2_0":
        assert planned.bytes() == sum(data.nbytes for _, data in tensors.values())
    on_device, on_host = bytes_by_place(planned, torch.device("cuda"))
    assert on_host == tensors["token_embd.weight"][1].nbytes
    assert on_device + on_host == pytest.approx(planned.bytes(), abs=60 * 256)
    assert bytes_by_place(planned, CPU)[1] == pytest.approx(planned.bytes(), abs=60 * 256)


def test_planning_takes_no_memory_for_weights(tmp_path):
    path = tmp_path / "model.gguf"
    packed_gguf.write(path)
    planned = plan_weights(ModelFiles("test", None, path), torch.bfloat16, CPU)
    assert all(tensor.is_meta for tensor in planned.tensors())


def test_loading_takes_little_more_memory_than_the_tensors(tmp_path, monkeypatch):
    for name, value in (("HIDDEN", 2048), ("WIDTH", 8192), ("VOCABULARY", 20_000)):
        monkeypatch.setattr(packed_gguf, name, value)
    path = tmp_path / "model.gguf"
    tensors = packed_gguf.write(path, LLAMA, lambda name: "Q8_0")
    program = """
        import sys
        from pathlib import Path

        import torch

        from hga_engine.model.files import ModelFiles
        from hga_engine.model.load import load_model, plan_weights

        def peak():
            status = Path("/proc/self/status").read_text()
            return int(status.partition("VmHWM:")[2].split()[0]) * 1024

        files = ModelFiles("test", None, Path(sys.argv[1]))
        plan_weights(files, torch.bfloat16, torch.device("cpu"))  # imports
        before = peak()
        weights = load_model(files, torch.bfloat16)
        print(peak() - before)
    """
    command = [sys.executable, "-c", textwrap.dedent(program), str(path)]
    grown = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    size = sum(data.nbytes for _, data in tensors.values())
    assert size > 190e6
    assert grown < 1.05 * size


def write_split(folder, parts=3):
    """Write a model and its parts; return the paths of the parts."""
    packed_gguf.write(folder / "whole.gguf")
    everything = list(packed_gguf.tensors(LLAMA, lambda name: "Q4_K").items())
    paths = []
    for part in range(parts):
        metadata = [
            ("add_uint16", "split.count", parts),
            ("add_uint16", "split.no", part),
            ("add_int32", "split.tensors.count", len(everything)),
        ]
        path = folder / f"model-{part + 1:05}-of-{parts:05}.gguf"
        held = dict(everything[part::parts])
        packed_gguf.write(path, metadata=metadata, held=held)
        paths.append(path)
    return paths


def test_any_part_of_a_split_file_opens_all_of_them(tmp_path):
    paths = write_split(tmp_path)
    whole = [*load(tmp_path / "whole.gguf").tensors()]
    for path in paths:
        found = [*load(path).tensors()]
        assert all(torch.equal(one, other) for one, other in zip(found, whole, strict=True))


def test_missing_foreign_and_renamed_parts_are_named(tmp_path):
    paths = write_split(tmp_path)
    second = paths[1].read_bytes()
    paths[1].unlink()
    with pytest.raises(ModelFileError, match=r"model-00002-of-00003\.gguf: is missing.* 3 files"):
        load(paths[2])
    paths[1].write_bytes(paths[2].read_bytes())
    with pytest.raises(ModelFileError, match=r"model-00002-of-00003\.gguf: is not part 2 of 3"):
        load(paths[0])
    paths[1].write_bytes(second)
    alone = tmp_path / "alone.gguf"
    paths[0].rename(alone)
    with pytest.raises(ModelFileError, match=r"alone\.gguf: is one of 3 parts.*-00001-of-00003"):
        load(alone)


def test_parts_with_other_tensors_are_refused(tmp_path):
    paths = write_split(tmp_path)
    held = dict(packed_gguf.tensors(LLAMA, lambda name: "Q4_K"))
    metadata = [("add_uint16", "split.count", 3), ("add_uint16", "split.no", 1)]
    packed_gguf.write(
        paths[1], metadata=metadata, held={"token_embd.weight": held["token_embd.weight"]}
    )
    with pytest.raises(ModelFileError, match=r"-00002-of.*token_embd\.weight is also in model-0"):
        load(paths[0])
    packed_gguf.write(paths[1], metadata=metadata, held={"other.weight": held["output.weight"]})
    with pytest.raises(ModelFileError, match=r"hold \d+ tensors instead of 21"):
        load(paths[0])


def test_the_fingerprint_covers_every_part(tmp_path):
    paths = write_split(tmp_path)
    before = fingerprint(ModelFiles("test", None, paths[0]))
    assert fingerprint(ModelFiles("test", None, paths[2])) == before
    data = bytearray(paths[1].read_bytes())
    data[-1] ^= 1
    paths[1].write_bytes(data)
    assert fingerprint(ModelFiles("test", None, paths[0])) != before
