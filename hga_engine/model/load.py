"""Load a model's geometry and weights, from any of the file formats, to where they are used."""

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from hga_engine.model.files import ModelFiles

if TYPE_CHECKING:
    import torch

    from hga_engine.config import ModelConfig
    from hga_engine.model.source import StoredSource
    from hga_engine.model.types import ModelWeights


def read_model_config(files: ModelFiles) -> "ModelConfig":
    """Return the geometry of a model without loading its weights.

    Raises:
        ModelFileError: a file is missing, damaged or not supported.
    """
    # Without torch, which listing documents does without.
    from hga_engine.model import config_json, gguf_config
    from hga_engine.model.gguf_file import open_gguf

    if files.gguf is not None:
        config = gguf_config.read_config(open_gguf(files.gguf))
    else:
        config = config_json.read_config(files.path).model
    return _with_overrides(config, files)


def weights_dtype() -> "torch.dtype":
    """Return bf16 where the CPU multiplies it in hardware; elsewhere float32 is faster in torch."""
    import torch

    return torch.bfloat16 if torch.ops.mkldnn._is_mkldnn_bf16_supported() else torch.float32


def load_model(
    files: ModelFiles,
    dtype: "torch.dtype",
    progress: Callable[[str, float], None] | None = None,
    device: "torch.device | None" = None,
    keep_fp8: bool | None = None,
) -> "ModelWeights":
    """Load weights to where they are used.

    They go from their files straight to the device, and those in block formats stay packed. With
    adapters, weights are dequantised one tensor at a time and merged; the result is cached, see
    ``weight_cache``.

    Args:
        files: where the model is.
        dtype: type of plain weights. Beside packed weights, norms and with them hidden states are
            at least float32: in bf16 they would lose what the weights keep.
        progress: called with the current step and its progress, 0 to 1.
        device: device of the weights; None for host memory.
        keep_fp8: whether FP8 weights stay FP8; None for on a GPU only.

    Raises:
        ModelFileError: a file is missing, damaged or not supported.
        MemoryError: the embedding cannot be locked in host memory for the GPU.
    """
    import torch

    from hga_engine.model.gguf_file import open_gguf
    from hga_engine.model.placement import arranged, lock_embedding, side_by_side
    from hga_engine.model.stream import stream_weights

    target = torch.device("cpu") if device is None else device
    if files.adapters:
        weights = side_by_side(_load_merged(files, dtype, progress), target)
    else:
        weights = stream_weights(
            _open(files), dtype, target, _keeps_fp8(keep_fp8, target), progress
        )
    open_gguf.cache_clear()
    weights = replace(weights, config=_with_overrides(weights.config, files))
    return lock_embedding(arranged(weights))


def plan_weights(
    files: ModelFiles,
    dtype: "torch.dtype",
    device: "torch.device",
    keep_fp8: bool | None = None,
) -> "ModelWeights":
    """Return the weights that ``load_model`` would give, without memory (torch's meta device).

    Args:
        files: where the model is.
        dtype: type of plain weights.
        device: device of the weights.
        keep_fp8: whether FP8 weights stay FP8; None for on a GPU only.

    Raises:
        ModelFileError: a file is missing, damaged or not supported.
    """
    from hga_engine.model.holding import Holding
    from hga_engine.model.placement import planned, planned_weights

    source = _open(files)
    if files.adapters:
        return planned_weights(source.config, lambda joined: planned(joined.shape, dtype))
    return Holding(source, dtype, device, _keeps_fp8(keep_fp8, device)).weights


def _keeps_fp8(wanted: bool | None, device: "torch.device") -> bool:
    return device.type != "cpu" if wanted is None else wanted


def _load_merged(
    files: ModelFiles,
    dtype: "torch.dtype",
    progress: Callable[[str, float], None] | None,
) -> "ModelWeights":
    from hga_engine.model import weight_cache
    from hga_engine.model.adapter import AdaptedSource
    from hga_engine.model.source import assemble

    cached = weight_cache.load_weights(files, dtype)
    if cached is not None:
        return cached
    weights = assemble(AdaptedSource(_open(files), files.adapters), dtype, progress)
    weights = replace(weights, config=_with_overrides(weights.config, files))
    weight_cache.save_weights(files, weights)
    return weights


def _open(files: ModelFiles) -> "StoredSource":
    # Imported here: looking for a model must not import torch.
    from hga_engine.model.directory import DirectorySource
    from hga_engine.model.gguf import GgufSource
    from hga_engine.model.gguf_file import open_gguf

    if files.gguf is not None:
        return GgufSource(open_gguf(files.gguf))
    return DirectorySource(files.path)


def _with_overrides(config: "ModelConfig", files: ModelFiles) -> "ModelConfig":
    if files.rope_base is not None:
        config = replace(config, rope_base=files.rope_base, rope_scaling=None)
    return replace(
        config,
        max_positions=files.max_positions or config.max_positions,
    )
