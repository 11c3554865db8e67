"""What is said of a file that cannot be taken."""

from __future__ import annotations


class ImportRefused(Exception):
    """The file is not taken: why, and what would be."""
