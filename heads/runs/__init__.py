"""Runs on disk: checkpoints, the stores that they read, late fusion."""
