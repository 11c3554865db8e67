"""Model files that somebody else made: looked through before anything is constructed, and turned into Podium's own."""
