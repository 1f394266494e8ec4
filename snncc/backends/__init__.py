"""What runs a compiled network: one module per engine."""
