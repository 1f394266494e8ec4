"""What thousands of tests in one process need not do again, and how workers share processors.

None of it changes what a test sees: networks are exported, compiled and run as everywhere.
"""

from __future__ import annotations

import functools
import gc
import os

__all__ = ["collect_rarely", "limit_onnx_runtime", "read_torchlib_once", "share_processors"]


def share_processors(workers: int) -> None:
    """Libraries of each worker start as many threads as there are processors for it.

    By default they take all, and threads that wait for work keep a processor busy: half of what
    ONNX Runtime spends on a small graph. Called before workers start, it reaches torch, and the
    programs that tests run, through the environment.
    """
    share = max(1, (os.cpu_count() or 1) // max(1, workers))
    os.environ.setdefault("OMP_NUM_THREADS", str(share))


def limit_onnx_runtime() -> None:
    """The same for ONNX Runtime, which reads no environment; a number that is given is kept."""
    import onnxruntime

    class Session(onnxruntime.InferenceSession):
        def __init__(self, model, sess_options=None, **more):
            if sess_options is not None and sess_options.intra_op_num_threads == 0:
                sess_options.intra_op_num_threads = int(os.environ.get("OMP_NUM_THREADS", "1"))
            super().__init__(model, sess_options, **more)

    onnxruntime.InferenceSession = Session


def read_torchlib_once() -> None:
    """torch.onnx.export keeps its table of operators instead of parsing 500 functions each time."""
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    ONNXRegistry.from_torchlib = staticmethod(functools.cache(ONNXRegistry.from_torchlib))


def collect_rarely() -> None:
    """Garbage of cycles is looked for after 100,000 new objects, not after 700.

    What modules made when they were imported, a million objects, is not looked at again.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 50)
