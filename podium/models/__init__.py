"""The model file: encoding and estimator in one object with two ways in, a frame and a single record."""
