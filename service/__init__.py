"""Predictions over HTTP; started by `podium serve` or `python -m service`."""
