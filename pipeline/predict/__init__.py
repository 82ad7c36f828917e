"""`feie predict` and `feie compound`: intensities of videos without labels."""
