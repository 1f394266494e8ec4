"""Run every emitted directory below a folder in one process: run_all.py FOLDER EXECUTOR FLAG...

Flags: ``stock``. Each directory gets its y.npz, or error.txt.
"""

import sys
from pathlib import Path

import numpy as np

folder, executor, *flags = sys.argv[1:]
directories = sorted(path.parent for path in Path(folder).glob("*/graph.json"))
sys.path.insert(0, str(directories[0]))  # the code is the same in all

from run import run  # noqa: E402

for directory in directories:
    try:
        arrays, _ = run(
            directory, directory / "x.npy", executor, trains=True, stock="stock" in flags
        )
    except (OverflowError, RuntimeError) as e:
        (directory / "error.txt").write_text(f"{type(e).__name__}: {e}\n")
    else:
        np.savez(directory / "y.npz", **arrays)
