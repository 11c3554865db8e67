"""Request rows, served models, batch predictions and result tables."""
