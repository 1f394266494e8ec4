"""What cannot become spikes, and why."""
