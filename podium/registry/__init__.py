"""Versions, the audit log, promotion and its gates, validation, garbage collection and consistency checks."""
