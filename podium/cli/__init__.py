"""The `podium` command: it sees every room, and no room sees it."""
