"""Entry point of the ``hga-chat`` command."""

import gc
import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code."""
    # Imports and documents create few cycles; searching for them takes a tenth of the startup.
    gc.set_threshold(100_000, 20, 20)
    from hga_chat.cli.app import run

    return run(sys.argv[1:] if arguments is None else arguments)


if __name__ == "__main__":
    sys.exit(main())
