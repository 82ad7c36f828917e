"""feie: facial expression intensity estimation from video, offline, in two stages."""

__version__ = "0.1.0"
