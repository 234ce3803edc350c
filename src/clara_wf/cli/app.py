"""The program `clara-wf`: its commands, its help, and how it ends."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from clara_wf import __version__
from clara_wf.cli import (
    build,
    cluster,
    export,
    model_add,
    model_test,
    models,
    phantom,
    run,
    serve,
    stages,
    test,
    trtis,
    workflows,
    workspace,
)
from clara_wf.cli.doctor import doctor
from clara_wf.cli.interrupts import interrupted_by_signals
from clara_wf.cli.names import Commands
from clara_wf.cli.terminal import print_anything, report_error
from clara_wf.model.errors import ClaraError, LackError

#: As a shell reports a program that Ctrl-C ended.
INTERRUPTED = 130

app = typer.Typer(
    cls=Commands,
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Not for clinical use. Exit codes: 0 done, 1 the job failed, 2 wrong use, 3 this machine lacks something.",
)

_GUIDE = "Commands of the guide"
_RUN = "Run workflows on your own data"
_MORE = "More"

app.command("list_stages | list | ls", rich_help_panel=_GUIDE)(stages.list_stages)
app.command("create_stage | create | cs", rich_help_panel=_GUIDE)(stages.create_stage)
app.command("delete_stage | delete | ds", rich_help_panel=_GUIDE)(stages.delete_stage)
app.command("test_workflow | test", rich_help_panel=_GUIDE)(test.test_workflow)
app.command("install_trtis", rich_help_panel=_GUIDE)(trtis.install_trtis)
app.command("uninstall_trtis", rich_help_panel=_GUIDE)(trtis.uninstall_trtis)
app.command("set_ngc_api_key | setkey", rich_help_panel=_GUIDE)(cluster.set_ngc_api_key)
app.command("run", rich_help_panel=_RUN)(run.run)
app.command("build", rich_help_panel=_RUN)(build.build)
app.command("workflows", rich_help_panel=_RUN)(workflows.workflows)
app.command("show", rich_help_panel=_RUN)(workflows.show)
models.app.command("add")(model_add.add)
models.app.command("test")(model_test.test_model)
models.app.command("configure")(serve.configure)
app.add_typer(models.app, name="model", rich_help_panel=_RUN)
app.add_typer(trtis.app, name="trtis", rich_help_panel=_RUN)
app.add_typer(export.app, name="export", rich_help_panel=_RUN)
app.command("init", rich_help_panel=_MORE)(workspace.init)
app.command("phantom", rich_help_panel=_MORE)(phantom.phantom)
app.command("doctor", rich_help_panel=_MORE)(doctor)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"clara-wf {__version__}")
        raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    *,
    workspace_folder: Annotated[
        Path | None,
        typer.Option(
            "--workspace", metavar="DIR", help="Folder with charts, models and payloads (default: the nearest above)."
        ),
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show the trace of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Build, run and test medical-imaging AI workflows: DICOM in, segmentation, DICOM out."""
    del version
    if workspace_folder is not None:
        os.environ[workspace.VARIABLE] = str(workspace_folder)
    if debug:
        os.environ[_DEBUG] = "1"
    if context.invoked_subcommand is None:
        print(context.get_help())


_DEBUG = "CLARA_WF_DEBUG"


def main() -> None:
    """Run the program and exit with its code."""
    print_anything()
    try:
        with interrupted_by_signals():
            app(prog_name="clara-wf")
    except ClaraError as fault:
        _raise_if_debugging(fault)
        report_error(str(fault))
        sys.exit(fault.exit_code)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        # The reader of a pipe has gone (`clara-wf ls | head`): what is left to say has nowhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except MemoryError as fault:
        _raise_if_debugging(fault)
        report_error("out of memory. Close other programs, or take a machine with more")
        sys.exit(LackError.exit_code)
    except OSError as fault:
        _raise_if_debugging(fault)
        where = f": {fault.filename}" if fault.filename else ""
        report_error(f"{fault.strerror or fault}{where}")
        sys.exit(1)


def _raise_if_debugging(fault: BaseException) -> None:
    if os.environ.get(_DEBUG):
        raise fault
