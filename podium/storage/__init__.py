"""The store: plain S3 with conditional writes; what is written once never changes."""
