"""What is no layer and no neuron disappears into the layers beside it."""
