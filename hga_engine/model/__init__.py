"""Model files to weights: Hugging Face directories and GGUF, with adapters merged."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from hga_engine.model.files import ModelFiles

if TYPE_CHECKING:
    import torch

    from hga_engine.config import ModelConfig
    from hga_engine.model.source import TensorSource
    from hga_engine.model.types import ModelWeights


def read_model_config(files: ModelFiles) -> "ModelConfig":
    """Geometry of a model, without its weights.

    Raises:
        ModelFileError: a file is missing, damaged or of an unknown kind.
    """
    return _with_overrides(_open(files).config, files)


def weights_dtype() -> "torch.dtype":
    """bf16 where the CPU multiplies it; elsewhere torch is faster in float32."""
    import torch

    return torch.bfloat16 if torch.ops.mkldnn._is_mkldnn_bf16_supported() else torch.float32


def load_model(
    files: ModelFiles,
    dtype: "torch.dtype",
    progress: Callable[[str, float], None] | None = None,
) -> "ModelWeights":
    """Load weights into host memory, merging adapters, a tensor at a time.

    What was merged and converted before is taken from where it was kept.

    Args:
        files: where the model is.
        dtype: of the weights.
        progress: told what is being done and how far, 0 to 1.

    Raises:
        ModelFileError: a file is missing, damaged or of an unknown kind.
    """
    from dataclasses import replace

    from hga_engine.model import prepared
    from hga_engine.model.adapter import AdaptedSource
    from hga_engine.model.gguf_file import open_gguf
    from hga_engine.model.placement import side_by_side
    from hga_engine.model.source import assemble

    kept = prepared.load_weights(files, dtype)
    if kept is not None:
        open_gguf.cache_clear()
        return side_by_side(kept)
    source = _open(files)
    if files.adapters:
        source = AdaptedSource(source, files.adapters)
    weights = assemble(source, dtype, progress)
    open_gguf.cache_clear()
    weights = replace(weights, config=_with_overrides(weights.config, files))
    prepared.keep_weights(files, weights)
    return side_by_side(weights)


def _open(files: ModelFiles) -> "TensorSource":
    # Finding a model must not cost the import of torch.
    from hga_engine.model.gguf import GgufSource
    from hga_engine.model.gguf_file import open_gguf
    from hga_engine.model.loader import DirectorySource

    if files.gguf is not None:
        return GgufSource(open_gguf(files.gguf))
    return DirectorySource(files.path)


def _with_overrides(config: "ModelConfig", files: ModelFiles) -> "ModelConfig":
    from dataclasses import replace

    return replace(
        config,
        rope_base=files.rope_base or config.rope_base,
        max_positions=files.max_positions or config.max_positions,
    )
