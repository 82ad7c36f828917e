"""`feie doctor`, `feie models`, `feie demo`: what this machine can do."""
