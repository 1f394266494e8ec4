"""What a network does and takes on data: spikes, operations and energy, in constant memory."""
