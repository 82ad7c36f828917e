"""`feie evaluate`: scores, checks of what makes them doubtful, the report."""
