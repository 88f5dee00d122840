"""Connections to model containers: endpoints, their pools, and the parser of their responses."""
