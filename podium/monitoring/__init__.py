"""The prediction log, its proofs, and the verification of logged predictions."""
