"""The console script ``hga-chat``."""

import gc
import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code."""
    # Imports and documents leave hardly any cycles; looking for them costs a tenth of the start.
    gc.set_threshold(100_000, 20, 20)
    from hga_chat.cli.app import run

    return run(sys.argv[1:] if arguments is None else arguments)


if __name__ == "__main__":
    sys.exit(main())
