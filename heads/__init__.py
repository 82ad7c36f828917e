"""Stage two: ragged arrays, labels, heads, losses, metrics and training."""
