"""The command line in-process, with volatile figures masked."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from snncc.cli import cli

ROOT = Path(__file__).parents[1]
EXAMPLE = "examples/fashion_mnist"
CHECKPOINT = f"{EXAMPLE}/cnn_d4.pt"
ARCH = f"--arch={EXAMPLE}/models.py:cnn"
CALIBRATION = f"{EXAMPLE}/calibration_256.npz"
MODELS = "tests/cli_models.py"

_VOLATILE = (
    (r"\d+\.\d s\b", "TIME"),
    (r", of which import torch TIME", ""),
    (r"\d+(\.\d)? [kM]?B\b", "SIZE"),
    (r"\b\d\.\de[-+]\d\d\b", "TINY"),
    (r"\d+ samples/s", "RATE samples/s"),
    (r"made by .*", "made by    VERSIONS"),
)


@dataclass
class Ran:
    """What a command did."""

    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        """The document on stdout."""
        return json.loads(self.stdout)


def run_cli(folder: Path, *args: object) -> Ran:
    """Run a command; ``folder`` is written TMP."""
    result = CliRunner().invoke(cli, [str(a) for a in args], terminal_width=80)
    texts = [result.stdout, result.stderr]
    for pattern, word in ((re.escape(str(folder)), "TMP"), *_VOLATILE):
        texts = [re.sub(pattern, word, text) for text in texts]
    return Ran(result.exit_code, *texts)
