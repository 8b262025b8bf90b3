"""What the daemon tells about its work: log lines and metrics."""
