"""AI engines: whatever turns messages into a streamed reply."""
