"""Sources and their frames: found in a folder, decoded one by one, each with its time."""
