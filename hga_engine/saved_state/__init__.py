"""A session's state on disk, so that nothing has to be prefilled twice.

A folder holds one session's state:

- ``state.json``: the manifest. It alone says what is saved, and is replaced as a whole.
- ``pages.kv``: K/V of full groups, each page at its fixed place in a sparse file.
- ``tokens.<n>.safetensors``: token ids, a checksum a page, and the pages of the open group.
- ``index.<n>.safetensors``: the routing index of the chunks closed so far.

Files named by a manifest never change; a save writes new ones beside them. Pages that a manifest
vouches for are written over only after one that does not has taken its place. So a process killed
at any moment leaves the state last saved, or a beginning of it.
"""

from hga_engine.saved_state.fork import fork
from hga_engine.saved_state.manifest import SavedInfo, read_info

__all__ = ["SavedInfo", "fork", "read_info"]
