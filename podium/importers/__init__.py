"""Import model files of other libraries: scan, read, convert and compare with the original."""
