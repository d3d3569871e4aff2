"""A report for a board as one HTML page (extra `report`): nothing in it is fetched from anywhere."""

from tokopt.report.html.page import page, require_pages

__all__ = ["page", "require_pages"]
