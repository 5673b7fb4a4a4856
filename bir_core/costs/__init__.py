"""What networks and whole runs compute and move, counted before any work."""
