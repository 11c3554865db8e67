"""Train candidates from a table: preparation, features, families, ranking and reports."""
