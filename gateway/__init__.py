"""The HTTP edge: takes requests, asks the bus, turns reply streams into SSE. It opens no database."""
