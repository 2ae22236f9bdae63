"""One file a revision; each is applied once, in order."""
