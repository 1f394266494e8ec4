"""PySpikeGate tick by tick, against products of what has come so far: gate_ticks.py FOLDER.

FOLDER has an emitted network. Prints ``same`` or ``different`` for each of the random trains, three
frames long.
"""

import sys

import numpy as np

sys.path.insert(0, sys.argv[1])
from processes.gate import PySpikeGate


class Port:
    """Hands over one array after the other."""

    def __init__(self, values=()):
        self.values = list(values)

    def recv(self):
        return self.values.pop(0)

    def send(self, value):
        self.values.append(np.array(value))


def trains(rng, frames, frame, shape, most):
    """Bursts of up to ``most`` ticks from the first tick of each frame on."""
    counts = rng.integers(0, most + 1, (frames, 1, *shape))
    return (np.arange(frame)[:, None, None, None] < counts).astype(np.int32)


def answer(a, b, silent, first):
    """What is sent in each tick, the trains one frame after the other; (frames, frame, *shape)."""
    frames, frame = a.shape[:2]
    gate = PySpikeGate({"first": first, "frame": frame, "silent": silent})
    before = first - 1
    for name, train in {"a": a, "b": b}.items():
        state, nothing = np.zeros(train.shape[2:], np.int32), np.zeros(train.shape[2:], np.int32)
        setattr(gate, name, state)
        port = Port([nothing] * before + list(train.reshape(-1, *train.shape[2:])))
        setattr(gate, f"{name}_in", port)
    shape = np.broadcast_shapes(a.shape[2:], b.shape[2:])
    gate.sent, gate.s_out = np.zeros(shape, np.int32), Port()
    for gate.time_step in range(1, first + frames * frame):
        gate.run_spk()
    assert not np.any(gate.s_out.values[:before])
    return np.array(gate.s_out.values[before:]).reshape(frames, frame, *shape)


def defined(a, b, silent):
    """A B - A' B' of each tick, from sums over all ticks up to it."""
    sent = np.zeros(np.broadcast_shapes(a.shape, b.shape), int)
    for n, tick in np.ndindex(a.shape[:2]):
        total, held = [], []
        for until, into in ((tick + 1, total), (tick, held)):
            spikes = b[n, :until].sum(axis=0)
            into += [a[n, :until].sum(axis=0), min(until, silent) - spikes if silent else spikes]
        sent[n, tick] = total[0] * total[1] - held[0] * held[1]
    return sent


rng = np.random.default_rng(0)
for _ in range(40):
    frame = int(rng.integers(1, 6))
    most = [int(n) for n in rng.integers(1, frame + 1, 2)]
    shapes = [(3, 2, 4), (1, 1, 4)] if rng.random() < 0.3 else [(3, 2, 4), (3, 2, 4)]
    a, b = (trains(rng, 3, frame, s, m) for s, m in zip(shapes, most, strict=True))
    silent = most[1] if rng.random() < 0.5 else 0
    same = np.array_equal(answer(a, b, silent, int(rng.integers(1, 9))), defined(a, b, silent))
    print("same" if same else "different")
