"""The commands of `python -m ops`, one a file."""
