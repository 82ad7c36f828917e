"""Labels, ragged sequences and batches: what a head reads."""
