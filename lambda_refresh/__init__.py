"""The Lambda that tells every replica that S3 has something new; standard library only."""
