"""Tools of ours: what a model may call and this engine runs itself."""
