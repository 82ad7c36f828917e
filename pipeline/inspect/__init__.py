"""`feie inspect`: pictures of videos, and a page about all videos of a store."""
