"""``snncc export``: a compiled network in another tool's form."""

from __future__ import annotations

from pathlib import Path

import click

from snncc.cli.files import check_input_file, output_folder
from snncc.cli.screen import Screen, plural, write_json
from snncc.cli.shared_options import PATH, file_argument, json_option
from snncc.errors import TargetError, Words

__all__ = ["export"]

#: All that an earlier export holds; what else is there is the user's, and never deleted.
_PARTS = (
    *("graph.json", "tensors.npz", "README.md", "processes", "__pycache__"),
    *("run.py", "network.py", "executors.py", "files.py"),
)


@click.command("export", short_help="Write a compiled network in another tool's form.")
@file_argument
@click.option("--to", "form", type=click.Choice(["lava"]), required=True, help="Which form.")
@click.option(
    "-o",
    "out",
    type=PATH,
    metavar="DIR",
    required=True,
    help="Folder to write.",
)
@click.option("-f", "--force", is_flag=True, help="Replace an earlier export in DIR.")
@json_option
def export(file: Path, form: str, out: Path, force: bool, as_json: bool) -> None:
    """Write a compiled network in another tool's form.

    For lava: processes of Intel's Lava, in a folder that runs with lava-nc 0.10.0 alone, by python
    DIR/run.py --input x.npy --output y.npz.
    """
    check_input_file(file)
    with output_folder(out, force, _PARTS) as claim:
        from snncc.backends.lava import emit
        from snncc.backends.lava.engine import refusal
        from snncc.runtime.artifact import load

        model = load(file)
        if why := refusal(model.program):
            raise TargetError(Words("lava ", why), emit.unsupported(model.program))
        claim.write(lambda part: emit.write(model.program, part, name=model.name))
    processes = emit.processes(out)
    if as_json:
        write_json({"name": model.name, "to": form, "path": str(out), "processes": processes})
        return
    screen = Screen()
    screen.line("wrote", str(out), plural(processes, "process|processes"))
    command = f"python {out / 'run.py'} --input x.npy --output y.npz"
    screen.line("runs", command, "(a Python 3.10 with lava-nc 0.10.0)")
