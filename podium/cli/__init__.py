"""The `podium` command. It may import every other package; no package imports it."""
