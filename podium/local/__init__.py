"""A local cloud on loopback: an S3 server, its events and the Lambda runtime; demo, smoke and acceptance runs on it."""

from podium.local.cloud import LocalCloud

__all__ = ["LocalCloud"]
