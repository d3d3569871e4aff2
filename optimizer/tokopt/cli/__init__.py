"""The command line: options to one call of the API to a renderer. Nothing heavy is imported before a command runs."""

from __future__ import annotations

from tokopt.cli.app import app, run

__all__ = ["app", "run"]
