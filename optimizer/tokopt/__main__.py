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
    finally:
        # Once an interrupt has passed through an `exec` of text, as dataclasses are made by, CPython remembers it as
        # unhandled and dies of the signal, whatever the exit status; evaluating any other text makes it forget.
        eval("0")


if __name__ == "__main__":
    sys.exit(main())
