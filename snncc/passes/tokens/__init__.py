"""Tokens and their products: which of them are spike-driven attention, and the maps they are of."""
