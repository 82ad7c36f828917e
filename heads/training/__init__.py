"""The shared trainer, its exact routing, and runs stacked into one model."""
