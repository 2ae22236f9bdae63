"""How the processes run and are watched."""
