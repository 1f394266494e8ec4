"""The command line's reference: every --help, and what importing it costs."""

import subprocess
import sys

import pytest
from click.testing import CliRunner

from snncc.cli import cli


def _help(*args):
    return CliRunner().invoke(cli, [*args, "--help"], terminal_width=80).stdout


def test_help_of_all(golden):
    assert _help() == golden


@pytest.mark.parametrize("command", sorted(cli.commands))
def test_help(command, golden):
    assert _help(command) == golden


def test_no_command_shows_the_help():
    assert CliRunner().invoke(cli, [], terminal_width=80).stdout == _help()


@pytest.mark.parametrize(
    "args", [["--help"], ["engines"], ["chips"], ["compile", "--help"], ["--version"]]
)
def test_light_commands_import_nothing_heavy(args):
    code = f"""
import sys
from snncc.__main__ import main
sys.argv = ["snncc", *{args}]
try:
    main()
except SystemExit as e:
    assert not e.code, e.code
heavy = {{"torch", "onnx", "onnx_ir", "onnxruntime", "onnxscript"}} & set(sys.modules)
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_running_a_network_needs_no_torch(cnn):
    code = f"""
import sys
sys.modules["torch"] = sys.modules["onnxscript"] = None  # importing them fails
from snncc.__main__ import main
sys.argv = ["snncc", "verify", {str(cnn)!r}, "--limit", "1"]
main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_version_is_said(snncc):
    assert snncc("--version").stdout.startswith("snncc ")
