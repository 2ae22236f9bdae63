"""What is said between processes: frozen structs and pure values. Imports msgspec and the standard library only."""
