"""A local cloud (S3 server, events and Lambda runtime), and the demo, smoke and acceptance runs that use it."""

from podium.local.cloud import LocalCloud

__all__ = ["LocalCloud"]
