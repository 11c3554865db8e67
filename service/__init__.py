"""Predictions over HTTP: `uvicorn --factory service:create_app`."""

from service.app import create_app

__all__ = ["create_app"]
