"""From model files to an engine on a device."""

from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch

from hga_engine.config import DeviceName, EngineConfig, ModelConfig, resolve
from hga_engine.engine import Engine
from hga_engine.errors import HostBudgetError, NoGpuError, SavedStateError, WeightMemoryError
from hga_engine.memory import ledger, probes
from hga_engine.memory.device_plan import DeviceUse, plan_device
from hga_engine.model.files import ModelFiles, fingerprint
from hga_engine.model.load import load_model, plan_weights, read_model_config, weights_dtype
from hga_engine.model.placement import bytes_by_place
from hga_engine.model.rope import for_context
from hga_engine.model.synthetic import Topics, WeightKind, plan_synthetic, synthetic_weights
from hga_engine.model.types import ModelWeights
from hga_engine.saved_state.manifest import read_info
from hga_engine.tokenizer.load import load_tokenizer
from hga_engine.tokenizer.synthetic import synthetic_tokenizer
from hga_engine.tokenizer.tokenizer import Tokenizer
from hga_kernels import compile_for_cpu

_CPU = torch.device("cpu")
_LEAST_CAPABILITY = (8, 9)
"""FP8 numbers in hardware: Ada Lovelace and later."""


@dataclass(frozen=True)
class LoadedModel:
    """A model in memory, from which sessions are opened."""

    weights: ModelWeights
    tokenizer: Tokenizer
    name: str
    fingerprint: str

    @property
    def device_type(self) -> str:
        """Where it computes: "cpu" or "cuda"."""
        return self.weights.final_norm.device.type


def usable_gpu() -> torch.device | None:
    """A GPU that the kernels run on."""
    if not torch.cuda.is_available() or torch.cuda.get_device_capability() < _LEAST_CAPABILITY:
        return None
    return torch.device("cuda")


def choose_device(weights_on: Callable[[torch.device], int], wanted: DeviceName) -> torch.device:
    """Choose the device that a model runs on.

    Args:
        weights_on: returns the bytes that its weights take on a GPU.
        wanted: "auto" takes the GPU if the weights fit beside what is in use there.

    Raises:
        ModelFileError: the files say too little of the model.
        NoGpuError: a GPU is asked for, and none can be used.
        WeightMemoryError: a GPU is asked for, and the weights do not fit.
    """
    gpu = None if wanted == "cpu" else usable_gpu()
    if gpu is None:
        if wanted == "cuda":
            raise NoGpuError(_LEAST_CAPABILITY)
        return _CPU
    free, _ = torch.cuda.mem_get_info(gpu)
    needed = weights_on(gpu)
    if needed <= free:
        return gpu
    if wanted == "cuda":
        raise WeightMemoryError(needed, free, "cuda")
    return _CPU


def dtype_on(device: torch.device) -> torch.dtype:
    """Return the type of plain weights on a device."""
    return weights_dtype() if device == _CPU else torch.bfloat16


def _device_of(files: ModelFiles, wanted: DeviceName) -> torch.device:
    return choose_device(lambda gpu: _weights_bytes(files, gpu)[0], wanted)


def _weights_bytes(files: ModelFiles, device: torch.device) -> tuple[int, int]:
    """Return the bytes that the weights will take on a GPU and in host memory."""
    return bytes_by_place(plan_weights(files, dtype_on(device), device), device)


def prepare_model(
    files: ModelFiles,
    progress: Callable[[str, float], None] | None = None,
    device: DeviceName = "auto",
) -> LoadedModel:
    """Load weights and tokenizer.

    Args:
        files: where the model is.
        progress: called with what is being done and how far it is, 0 to 1.
        device: where the weights go.

    Raises:
        ModelFileError: a file is missing, damaged or of an unknown kind.
        NoGpuError: a GPU is asked for, and none can be used.
        WeightMemoryError: the weights do not fit.
    """
    tokenizer = load_tokenizer(files)
    chosen = _device_of(files, device)
    _, on_host = _weights_bytes(files, chosen)
    room = probes.available_memory_bytes()
    if on_host > room:
        raise WeightMemoryError(on_host, room, "cpu")
    if chosen == _CPU:
        # Else the first layer of the first prefill would seem to take that long.
        report = progress or (lambda *_: None)
        compile_for_cpu(lambda: report("Compiling kernels for this processor, once", 0.0))
    weights = load_model(files, dtype_on(chosen), progress, chosen)
    return LoadedModel(weights, tokenizer, files.name, fingerprint(files))


@dataclass(frozen=True)
class Estimate:
    """What a full session of a model would take, and where."""

    device_type: str
    """"cpu" or "cuda"."""
    host_bytes: int
    device_bytes: int
    weights_bytes: int
    """Of both, what the weights take."""


def estimate(files: ModelFiles, config: EngineConfig, device: DeviceName = "auto") -> Estimate:
    """Estimate the memory of a full session, without loading the model.

    Args:
        files: where the model is.
        config: routing, context and budgets.
        device: where to compute.

    Raises:
        ModelFileError: the files say too little of the model.
        LongContextError: the model cannot be used for such a context.
        NoGpuError: a GPU is asked for, and none can be used.
        OutOfMemoryError: the session cannot fit.
    """
    model = for_context(read_model_config(files), config.cache.context)
    chosen = _device_of(files, device)
    weights = plan_weights(files, dtype_on(chosen), chosen)
    return estimate_session(model, bytes_by_place(weights, chosen), weights.dtype, config, chosen)


def estimate_session(
    model: ModelConfig,
    weights: tuple[int, int],
    hidden_dtype: torch.dtype,
    config: EngineConfig,
    device: torch.device,
) -> Estimate:
    """Estimate the memory of a full session beside weights.

    Args:
        model: geometry of the model.
        weights: their bytes on a GPU and in host memory.
        hidden_dtype: type of hidden states.
        config: routing, context and budgets.
        device: where to compute.

    Raises:
        OutOfMemoryError: the session cannot fit.
    """
    session, device_bytes = resolve(config, device.type), 0
    on_device, on_host = weights
    if device != _CPU:
        free, total = torch.cuda.mem_get_info(device)
        use = DeviceUse(total, weights=on_device, other=total - free)
        device_bytes = plan_device(model, session, use, torch.bfloat16, hidden_dtype).total
    plan = ledger.predict(model, on_host, session, torch.bfloat16, device.type, hidden_dtype)
    free_disk = probes.available_disk_bytes(config.cache)
    ledger.check(plan, probes.available_memory_bytes(), free_disk)
    return Estimate(device.type, plan.total_host, device_bytes, on_device + on_host)


def synthetic_model(
    name: str,
    config: ModelConfig,
    device: DeviceName = "auto",
    topics: Topics | None = None,
    seed: int = 0,
    packed: bool = False,
) -> LoadedModel:
    """A model of an exact geometry with random weights, made where it is to compute.

    Args:
        name: for reports.
        config: the geometry.
        device: where the weights go.
        topics: see ``synthetic_weights``.
        seed: of the draw.
        packed: whether weights are packed as in a Q4_K_M file; else linear weights are FP8 on a
            GPU and bf16 on a CPU.

    Raises:
        NoGpuError: a GPU is asked for, and none can be used.
        WeightMemoryError: the weights do not fit.
        MemoryError: the embedding cannot be locked in host memory for the GPU.
    """
    gpu = None if device == "cpu" else usable_gpu()
    if gpu is None and device == "cuda":
        raise NoGpuError(_LEAST_CAPABILITY)
    kind: WeightKind = "bf16" if gpu is None else "fp8"
    if packed:
        kind = "q4_k_m"
    needed = plan_synthetic(config, kind).bytes()
    room = probes.available_memory_bytes() if gpu is None else torch.cuda.mem_get_info(gpu)[0]
    if needed > room:
        raise WeightMemoryError(needed, room, "cpu" if gpu is None else "cuda")
    weights = synthetic_weights(config, kind, gpu or _CPU, seed, topics)
    return LoadedModel(weights, synthetic_tokenizer(config.vocab_size), name, "0" * 64)


def open_engine(model: LoadedModel, config: EngineConfig) -> Engine:
    """Open an engine over a model in memory, with the saved session or an empty one.

    Raises:
        HostBudgetError: the configuration has a host budget, and the model is on a GPU.
        LongContextError: the model cannot be used for such a context.
        OutOfMemoryError: the ledger says that the session cannot fit.
        KVStoreError: the disk tier cannot be set up.
        SavedStateError: the saved state is damaged, or of another model, geometry, routing
            or format.
    """
    device_type = model.device_type
    session = resolve(config, device_type)
    if device_type != "cpu" and config.cache.host_budget_bytes is not None:
        raise HostBudgetError
    ledger.check(
        ledger.predict(
            model.weights.config,
            model.weights.host_bytes(),
            session,
            torch.bfloat16,
            device_type,
            model.weights.dtype,
        ),
        probes.available_memory_bytes() + model.weights.host_bytes(),
        probes.available_disk_bytes(config.cache),
    )
    if config.cache.saved_dir is not None:
        saved = read_info(config.cache.saved_dir)
        if saved is not None and saved.routing != asdict(session.routing):
            raise SavedStateError("The saved K/V was made on another device or by another version.")
    return Engine(
        model.weights, model.tokenizer, session, model.name, model.fingerprint, torch.bfloat16
    )
