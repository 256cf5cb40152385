"""Tellwire: one channel, over any wire.

Importing this package loads nothing else; a test holds it to that.
"""

__version__ = "0.1.0"
