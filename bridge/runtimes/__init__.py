"""Programs that run outside the daemon's process, on the standard library alone."""
