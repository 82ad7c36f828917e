"""`feie dump`: the numbers of a store in the formats of others."""
