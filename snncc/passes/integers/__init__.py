"""From real numbers to integers: the input, weights, levels, and the grids they share."""
