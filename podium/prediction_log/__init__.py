"""The prediction log, its proofs, labels, and the verification of logged predictions."""
