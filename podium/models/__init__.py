"""Encoders, scorers and metrics, and the loading and verification of model files."""
