"""From integers to spikes: counts become ticks, and the graph a Program."""
