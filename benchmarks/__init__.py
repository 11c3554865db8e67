"""Scripts behind the figures in the README; each prints ratios measured in one run."""
