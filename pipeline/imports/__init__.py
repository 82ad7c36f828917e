"""`feie import`: features that other tools computed become a store."""
