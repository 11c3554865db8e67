"""Column and signature definitions that every package shares."""
