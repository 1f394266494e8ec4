"""Processes and ProcessModels for Lava, and nothing else.

Lava executes every module beside the one that defines a Process when it looks for ProcessModels;
so scripts do not belong here. Models use numpy only: they run in forked processes.

Time is cut into frames of ``frame`` ticks (a tick is a time step of Lava): a frame is one timestep
of one sample, and one frame follows the other without a gap. All arrays are in Lava's order
(W, H, C), the reverse of (C, H, W), so that ``array.T`` is the one in the other order.
"""
