"""Timesteps: T becomes the outer part of the batch axis."""
