"""Entry point of the command `tokopt` and of `python -m tokopt`."""

from __future__ import annotations

import os
import sys


def main() -> int:
    """Run the command line and return its exit status."""
    # Looking for pydantic plugins reads the metadata of every package installed; none of ours is one.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    try:
        from tokopt.cli import run

        return run()
    except KeyboardInterrupt:  # before the command line can say so, or while it already does
        sys.stderr.write("tokopt: interrupted\n")
        return 130


if __name__ == "__main__":
    sys.exit(main())
