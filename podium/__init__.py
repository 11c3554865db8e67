"""Podium: from a table on S3 to the best model in service."""

__version__ = "0.1.0"
