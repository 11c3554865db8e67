"""Import model files from other libraries: scan, read, convert and compare with the original."""
