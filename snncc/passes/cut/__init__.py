"""A network cut short: at a node, or at the end that the host computes."""
