"""The command line: ``snncc compile | check | inspect | run | verify | export | …``.

Results go to stdout (with ``--json`` exactly one document), everything else to stderr. Heavy
packages are imported inside the commands, so that ``--help`` answers at once.
"""

from __future__ import annotations

import click

from snncc.cli.catalogue import chips, engines, ops, targets
from snncc.cli.check import check
from snncc.cli.compile import compile_
from snncc.cli.diff import diff
from snncc.cli.doctor import doctor
from snncc.cli.eval import eval_
from snncc.cli.export import export
from snncc.cli.failures import Commands
from snncc.cli.inspect import inspect_
from snncc.cli.profile import profile
from snncc.cli.run import run
from snncc.cli.verify import verify_

__all__ = ["cli"]


def _print_version(context: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if wanted:
        import snncc

        click.echo(f"snncc {snncc.__version__}")
        context.exit()


@click.group(
    "snncc",
    cls=Commands,
    invoke_without_command=True,
    no_args_is_help=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Show the version and exit.",
)
@click.pass_context
def cli(context: click.Context) -> None:
    """Compile trained networks with integer activations to verified spikes.

    Exit codes: 0 ok, 1 internal error, 2 usage, 3 network not supported, 4 does not fit the target,
    5 verification mismatch, 6 bad file or data, 7 optional package missing, 8 done, but stdout is
    full or closed; 128 + N ended by signal N. A reader of stdout that stops early changes none.
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


for _command in (
    compile_, check, inspect_, run, eval_, diff, verify_, profile, export, engines, chips, targets,
    ops, doctor,
):  # fmt: skip
    cli.add_command(_command)
