"""Runs scripts as ``python script.py arguments`` does, but with Lava imported before: starter.py.

Importing it takes longer than most scripts. Reads a line for each script, a JSON list of a file for
stdout, one for stderr, and what comes after ``python``; answers with the exit code. Each script has
a process of its own, forked from this one, which is not touched by what scripts do.
"""

import json
import os
import runpy
import sys

import lava.magma.core.run_configs
import lava.magma.runtime.runtime
import lava.proc.conv.models
import lava.proc.conv.process
import lava.proc.conv.utils  # noqa: F401


def become(stdout, stderr, *argv):
    """What a new process has: files, arguments, and the script's folder on the path."""
    for path, number in ((os.devnull, 0), (stdout, 1), (stderr, 2)):
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, number)
        os.close(file)
    sys.stdin = os.fdopen(0)
    sys.argv, sys.path[0] = list(argv), os.path.dirname(argv[0])
    runpy.run_path(argv[0], run_name="__main__")


for line in sys.stdin:
    child = os.fork()
    if child == 0:
        become(*json.loads(line))
        break
    _, status = os.waitpid(child, 0)
    print(os.WEXITSTATUS(status) if os.WIFEXITED(status) else -os.WTERMSIG(status), flush=True)
