"""The models and engines that commands, conversations and sessions work with.

Everything goes through ``access``. Its methods import what they need when they are called: torch
takes a second to import, and listing documents or sessions does without it.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hga_engine.config import DeviceName, EngineConfig, ModelConfig
    from hga_engine.model.files import ModelFiles
    from hga_engine.opening import LoadedModel
    from hga_engine.protocol import EngineProtocol
    from hga_engine.saved_state import SavedInfo
    from hga_engine.tokenizer.tokenizer import Tokenizer


class EngineAccess:
    """Finds and loads models, opens engines, and handles their saved K/V."""

    def find_model(self, name: str) -> "ModelFiles":
        """Find a model by name or path; see ``hga_chat.models.find_model``."""
        from hga_chat import models

        return models.find_model(name)

    def native_context(self, files: "ModelFiles") -> int:
        """Return the context that a model was made for."""
        from hga_engine.model import load

        return load.read_model_config(files).max_positions

    def model_config(self, files: "ModelFiles") -> "ModelConfig":
        """Return the geometry of a model."""
        from hga_engine.model import load

        return load.read_model_config(files)

    def parameters(self, files: "ModelFiles") -> int | None:
        """Return how many parameters a model has."""
        from hga_engine.memory.ledger import parameter_count
        from hga_engine.model import load

        return parameter_count(load.read_model_config(files))

    def load_tokenizer(self, files: "ModelFiles") -> "Tokenizer":
        """Load the tokenizer alone; see ``hga_engine.tokenizer.load.load_tokenizer``."""
        from hga_engine.tokenizer import load

        return load.load_tokenizer(files)

    def load_model(
        self,
        files: "ModelFiles",
        config: "EngineConfig",
        device: "DeviceName",
        progress: Callable[[str, float], None],
    ) -> "LoadedModel":
        """Load a model and compile the kernels that its sessions need.

        Args:
            files: the model's files.
            config: configuration of the sessions.
            device: where to compute.
            progress: called with the current step and its completed fraction, 0 to 1.

        Raises:
            EngineError: the model is damaged, or a session does not fit in memory or in the
                positions that the model can be used for.
        """
        from hga_engine import opening
        from hga_engine.model.load import read_model_config
        from hga_engine.model.rope import for_context

        # Refuses a context before the weights are loaded.
        for_context(read_model_config(files), config.cache.context)
        model = opening.prepare_model(files, progress, device)
        self.compile_kernels(model, config, progress)
        return model

    def compile_kernels(
        self,
        model: "LoadedModel",
        config: "EngineConfig",
        progress: Callable[[str, float], None],
    ) -> None:
        """Compile a model's kernels; see ``hga_engine.compiling.compile_kernels``."""
        from hga_engine import compiling

        compiling.compile_kernels(model, config, progress)

    def open_engine(self, model: "LoadedModel", config: "EngineConfig") -> "EngineProtocol":
        """Open an engine over a loaded model; see ``hga_engine.opening.open_engine``."""
        from hga_engine import opening

        return opening.open_engine(model, config)

    def read_saved(self, folder: Path) -> "SavedInfo | None":
        """Describe the K/V saved in a folder; see ``hga_engine.saved_state.read_info``."""
        from hga_engine import saved_state

        return saved_state.read_info(folder)

    def copy_saved(
        self, source: Path, target: Path, tokens: int, context: int | None = None
    ) -> None:
        """Copy the first tokens of saved K/V; see ``hga_engine.saved_state.fork``."""
        from hga_engine import saved_state

        saved_state.fork(source, target, tokens, context)


access = EngineAccess()
