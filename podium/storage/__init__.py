"""Object store, dataset snapshots, daily ingest, and the local cache of model files."""
