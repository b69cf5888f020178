"""The file of token ids, page checksums and the pages of the open group."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import safetensors.numpy

from hga_engine.saved_state.manifest import Manifest, check_file, damaged


@dataclass(frozen=True)
class TokenFile:
    """The small part of a saved state, which changes with every save."""

    token_ids: npt.NDArray[np.int32]  # [tokens]
    checksums: npt.NDArray[np.uint32]  # [layers, kv_heads, closed groups]: CRC-32 of each page
    open_pages: npt.NDArray[np.uint8]  # [layers, kv_heads, page bytes]; [0, …] where none is open


def name(generation: int) -> str:
    """Name of the file in a folder."""
    return f"tokens.{generation}.safetensors"


def pack(
    token_ids: npt.NDArray[np.int32],
    checksums: npt.NDArray[np.uint32],
    open_pages: npt.NDArray[np.uint8],
) -> bytes:
    """The file's contents; shapes as in ``TokenFile``."""
    arrays = {"token_ids": token_ids, "checksums": checksums, "open_pages": open_pages}
    packed: bytes = safetensors.numpy.save(
        {key: np.ascontiguousarray(array) for key, array in arrays.items()}
    )
    return packed


def load(folder: Path, manifest: Manifest) -> TokenFile:
    """Read and check the file that a manifest names, as far as the manifest vouches for it.

    Raises:
        SavedStateError: it is missing, damaged or cannot be read.
    """
    path = check_file(folder, manifest.token_file)
    geometry = manifest.geometry
    try:
        arrays = safetensors.numpy.load_file(path)
        token_ids, checksums = arrays["token_ids"], arrays["checksums"]
        open_pages = arrays["open_pages"]
    except (OSError, KeyError, safetensors.SafetensorError) as error:
        raise damaged(path, str(error)) from error
    is_open = manifest.stored % geometry.group_size > 0
    pages = (geometry.layers if is_open else 0, geometry.kv_heads, geometry.page_bytes)
    places, closed = (geometry.layers, geometry.kv_heads), manifest.closed_groups
    if (
        token_ids.size < manifest.tokens
        or checksums.shape[:2] != places
        or checksums.shape[2] < closed
        or (is_open and open_pages.shape != pages)
    ):
        raise damaged(path, "it does not fit the manifest")
    return TokenFile(token_ids[: manifest.tokens], checksums[:, :, :closed], open_pages[: pages[0]])
