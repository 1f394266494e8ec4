"""The event engine: no clock; a population fires when its upstream bursts are complete."""
