"""Load programs: they speak only public protocols and print the figures we publish."""
