"""Synthetic faces with known action units, rendered from the ICT face model."""
