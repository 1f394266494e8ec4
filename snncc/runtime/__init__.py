"""The compiled artefact, sessions over engines, data and results."""
