"""The stage that runs the tools a model asked for, each effect at most once."""
