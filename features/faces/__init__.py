"""Faces in frames: found, followed from frame to frame, aligned to the 112x112 template."""
