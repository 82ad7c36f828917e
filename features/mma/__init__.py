"""The multi-task affect network (MMA) and what trains it."""
