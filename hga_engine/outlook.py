"""What a model will take and how fast it will decode here, known before it is loaded."""

from dataclasses import dataclass

import torch

from hga_engine.config import DeviceName, EngineConfig, ModelConfig, resolve
from hga_engine.memory import ledger
from hga_engine.memory.bandwidth import decode_bytes, decode_rate
from hga_engine.model.files import ModelFiles
from hga_engine.model.load import read_model_config
from hga_engine.opening import Estimate, choose_device, dtype_on, estimate, estimate_session


@dataclass(frozen=True)
class Outlook:
    """Memory of a full session, and the speed of its answers."""

    memory: Estimate
    tokens_per_s: float
    """Of decode with a full context, roughly: by bytes and bandwidth."""


def outlook(files: ModelFiles, config: EngineConfig, device: DeviceName = "auto") -> Outlook:
    """Predict a model that is on this machine.

    Raises:
        ModelFileError: the files say too little of the model.
        NoGpuError: a GPU is asked for, and none can be used.
        OutOfMemoryError: the session cannot fit.
    """
    return _outlook(read_model_config(files), estimate(files, config, device), config)


def outlook_ahead(
    model: ModelConfig,
    weights: int,
    config: EngineConfig,
    device: DeviceName = "auto",
    *,
    is_packed: bool = True,
) -> Outlook:
    """Predict a model that has not been fetched.

    Args:
        model: its geometry.
        weights: bytes of its files.
        config: routing, context and budgets.
        device: where to compute; "auto" takes a GPU if the weights fit there.
        is_packed: whether weights stay in memory as they are in the files; if not, those of FP8
            checkpoints do on a GPU, and all else is bf16.

    Raises:
        NoGpuError: a GPU is asked for, and none can be used.
        OutOfMemoryError: the session cannot fit.
    """
    chosen = choose_device(lambda _: weights, device)
    dtype = torch.float32 if is_packed else dtype_on(chosen)
    if chosen.type == "cpu":
        held = 0, weights if is_packed else ledger.weights_bytes(model, dtype)
    else:  # an embedding that is not the head stays in host memory
        table = 0 if model.tie_embeddings else 2 * model.vocab_size * model.hidden_size
        if is_packed:
            table = table * weights // ledger.weights_bytes(model, torch.bfloat16)
        held = weights - table, table
    return _outlook(model, estimate_session(model, held, dtype, config, chosen), config)


def _outlook(model: ModelConfig, memory: Estimate, config: EngineConfig) -> Outlook:
    session = resolve(config, memory.device_type)
    tokens = session.cache.context
    count = decode_bytes(model, memory.weights_bytes, session.routing, tokens)
    return Outlook(memory, decode_rate(model, count, torch.device(memory.device_type)))
