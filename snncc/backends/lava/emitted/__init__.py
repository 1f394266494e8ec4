"""What an emitted directory runs besides its processes; copied there as it is.

In the copies ``snncc.backends.lava.emitted.x`` and ``snncc.backends.lava.processes.x`` are ``x``
and ``processes.x``.
"""
