"""From a clean table to ranked candidates: pure functions, each the body of one task."""
