"""Shadow tests: how answers are compared, what pairs of them add up to, what follows from it."""
