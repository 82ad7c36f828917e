"""From tables and arrays of others to videos: what every format shares."""
