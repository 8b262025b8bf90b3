"""``python -m bridge`` and the console script."""

from __future__ import annotations

import gc
import sys

from bridge import commands


def main() -> int:
    """Runs the command line of this process; gives its exit status."""
    status = commands.main()
    gc.freeze()  # the process ends: searching its modules for garbage is a sixth of what `bridge validate` costs
    return status


if __name__ == "__main__":
    sys.exit(main())
