"""Tables: bytes to raw text columns to typed columns, the same code for training and for serving."""
