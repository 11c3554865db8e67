"""The error of the importers."""

from __future__ import annotations


class ImportRefused(Exception):
    """The file cannot be imported; the message says why and what would work."""
