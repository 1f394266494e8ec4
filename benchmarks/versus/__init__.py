"""The parts of ``event_vs_dense.py``: networks, what they are compared with, timing, reports."""
