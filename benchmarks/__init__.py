"""Scripts that measure the service; each compares results of one run."""
