"""Native kernels that score tree ensembles, and their Python interface."""
