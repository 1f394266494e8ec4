"""The clocked engine: binary spikes, tick by tick, under one global clock."""
