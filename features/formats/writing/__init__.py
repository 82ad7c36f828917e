"""Writing dumps: what is dumped, in which names, batch by batch."""
