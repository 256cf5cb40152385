"""The browser of tests/browser, for the pages that the documentation shows."""

from tests.browser.conftest import browser, complaints, context, open_page, pytest_collection_modifyitems

__all__ = ["browser", "complaints", "context", "open_page", "pytest_collection_modifyitems"]
