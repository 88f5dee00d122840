"""Tasks that are held and reported, clocks that can be replaced."""
