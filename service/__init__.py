"""Predictions over HTTP: `podium serve` or `python -m service`."""
