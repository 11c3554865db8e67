"""The cloud on a laptop: a real S3 server, its events and the real Lambda runtime, all on loopback."""

from podium.local.cloud import LocalCloud

__all__ = ["LocalCloud"]
