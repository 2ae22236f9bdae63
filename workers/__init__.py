"""The stages of a turn, each a pool of processes, and the shelves they share."""
