"""File formats of others and our own dumps: one module a format."""
