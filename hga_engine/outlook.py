"""What a model will take and how fast it will decode here, known before it is loaded."""

from dataclasses import dataclass

import torch

from hga_engine.config import DeviceName, EngineConfig, ModelConfig, resolve
from hga_engine.errors import NoGpuError, WeightMemoryError
from hga_engine.memory import ledger, probes
from hga_engine.memory.bandwidth import decode_bytes, decode_rate
from hga_engine.memory.device_plan import DeviceUse, plan_device
from hga_engine.model.files import ModelFiles, gguf_parts
from hga_engine.model.load import read_model_config
from hga_engine.opening import LEAST_CAPABILITY, Estimate, estimate, usable_gpu

_CPU = torch.device("cpu")


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
    memory = estimate(files, config, device)
    model = read_model_config(files)
    if files.adapters or (files.directory is not None and memory.device_type == "cpu"):
        weights = ledger.weights_bytes(model, torch.bfloat16)
    elif files.gguf is not None:
        weights = sum(path.stat().st_size for path in gguf_parts(files.gguf))
    else:
        weights = sum(path.stat().st_size for path in files.path.glob("*.safetensors"))
    return Outlook(memory, _rate(model, weights, config, torch.device(memory.device_type)))


def outlook_ahead(
    model: ModelConfig, weights: int, config: EngineConfig, device: DeviceName = "auto"
) -> Outlook:
    """Predict a model that has not been fetched.

    Args:
        model: its geometry.
        weights: bytes of its weights, which stay in memory as they are in its files.
        config: routing, context and budgets.
        device: where to compute; "auto" takes a GPU if the weights fit there.

    Raises:
        NoGpuError: a GPU is asked for, and none can be used.
        OutOfMemoryError: the session cannot fit.
    """
    gpu = None if device == "cpu" else usable_gpu()
    if gpu is None and device == "cuda":
        raise NoGpuError(LEAST_CAPABILITY)
    free, total = (0, 0) if gpu is None else torch.cuda.mem_get_info(gpu)
    if device == "cuda" and weights > free:
        raise WeightMemoryError(weights, free, "cuda")
    chosen = gpu if gpu is not None and weights <= free else _CPU
    session, device_bytes = resolve(config, chosen.type), 0
    if chosen != _CPU:
        use = DeviceUse(total, weights=weights, other=total - free)
        device_bytes = plan_device(model, session, use, torch.bfloat16).total
        weights_on_host = 0
    else:
        weights_on_host = weights
    plan = ledger.predict(model, weights_on_host, session, torch.bfloat16, chosen.type)
    ledger.check(plan, probes.available_memory_bytes(), probes.available_disk_bytes(config.cache))
    memory = Estimate(chosen.type, plan.total_host, device_bytes)
    return Outlook(memory, _rate(model, weights, config, chosen))


def _rate(model: ModelConfig, weights: int, config: EngineConfig, device: torch.device) -> float:
    session = resolve(config, device.type)
    count = decode_bytes(model, weights, session.routing, session.cache.context)
    return decode_rate(model, count, device)
