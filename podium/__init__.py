"""Train models on a table in S3 and serve the best one over HTTP."""

__version__ = "0.2.0"
