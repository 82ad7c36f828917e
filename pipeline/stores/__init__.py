"""`feie info`, `feie verify`, `feie merge`: what is done with whole stores."""
