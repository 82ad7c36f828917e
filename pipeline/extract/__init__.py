"""`feie extract`: every video of a folder becomes rows of a store."""
