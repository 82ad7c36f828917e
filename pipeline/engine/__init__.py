"""How stage one runs: threads, a watched child process, or the workers of a cluster."""
