"""The shelves of pluggable capabilities: one folder a kind, each with its port and its implementations."""
