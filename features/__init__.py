"""Stage one: video, faces, extractors and the store."""
