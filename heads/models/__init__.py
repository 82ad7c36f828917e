"""The heads: masked recurrent (MRNN), STAT, frame by frame, plugins, compound expressions."""
