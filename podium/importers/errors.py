"""The exception raised by the importers."""

from __future__ import annotations


class ImportRefused(Exception):
    """The file cannot be imported; the message gives the reason and a remedy."""
