"""Fixtures for tests of the command."""

from tests.cli.commands import start

__all__ = ["start"]
