"""Table readers, typed cells, fuzzy categories, panels, and warnings about inputs."""
