"""Text to checked records: the catalogs that come with tokopt and those that users lay over them."""

from tokopt.catalog.catalog import Catalog as Catalog
from tokopt.catalog.catalog import load_catalog as load_catalog

__all__ = ["Catalog", "load_catalog"]
