"""The version, stated once: the package's metadata, plans and stores have it from here."""

__version__ = "0.1.0"
