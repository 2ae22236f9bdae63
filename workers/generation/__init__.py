"""The stage that lets the model speak: claims a prepared turn, writes the reply, commits it."""
