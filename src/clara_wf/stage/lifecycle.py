"""The lifecycle of a stage: prepare, wait, execute, clean up, leave a lock."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NoReturn, TypeVar

from clara_wf.model.errors import ClaraError, JobCanceled, StageFailed, StageTimeout, UsageError
from clara_wf.model.files import UNFINISHED
from clara_wf.model.locks import Lock, now, wait_for
from clara_wf.stage.contract import Contract, StageContext
from clara_wf.stage.log import logging_to

Prepared = TypeVar("Prepared")
#: As a shell reports a command that `timeout` ended.
TIMEOUT_EXIT_CODE = 124


def _prepare_nothing(context: StageContext) -> None:
    """Stand in for a stage that has nothing to prepare."""


def _clean_up_nothing(context: StageContext, prepared: object) -> None:
    """Stand in for a stage that has nothing to clean up."""


def _no_arguments(parser: argparse.ArgumentParser) -> None:
    """Stand in for a stage without arguments of its own."""


def main(
    *,
    execute: Callable[[StageContext, Prepared], None],
    prepare: Callable[[StageContext], Prepared] = _prepare_nothing,  # type: ignore[assignment]
    cleanup: Callable[[StageContext, Prepared], None] = _clean_up_nothing,
    arguments: Callable[[argparse.ArgumentParser], None] = _no_arguments,
) -> NoReturn:
    """Run a stage under the contract and exit with its code: what stands below `if __name__ == "__main__"`.

    Parameters
    ----------
    execute : callable
        The work: reads `context.inputs`, writes `context.outputs`. Given what `prepare` returned.
    prepare : callable, optional
        Imports, model loading, warm-up. Runs while the stages before this one still work.
    cleanup : callable, optional
        Runs after `execute`, also when that failed.
    arguments : callable, optional
        Adds the stage's own arguments to a parser.
    """
    sys.exit(
        run(
            sys.argv[1:],
            os.environ,
            execute=execute,
            prepare=prepare,
            cleanup=cleanup,
            arguments=arguments,
            owns_process=True,
        )
    )


def run(
    argv: Sequence[str],
    environment: Mapping[str, str],
    *,
    execute: Callable[[StageContext, Prepared], None],
    prepare: Callable[[StageContext], Prepared] = _prepare_nothing,  # type: ignore[assignment]
    cleanup: Callable[[StageContext, Prepared], None] = _clean_up_nothing,
    arguments: Callable[[argparse.ArgumentParser], None] = _no_arguments,
    owns_process: bool = False,
) -> int:
    """Run a stage under the contract, as `main` does, and return the exit code.

    Parameters
    ----------
    argv : sequence of str
        The stage's own arguments.
    environment : mapping of str to str
        Holds the `NVIDIA_CLARA_*` variables.
    execute, prepare, cleanup, arguments : callable
        As in `main`.
    owns_process : bool
        Whether SIGTERM and the working time-out may end this process. Without it a stage runs as a mere function: it
        can be called from a test or a thread, and nothing but itself ends its work.

    Returns
    -------
    int
        0, or what `ClaraError.exit_code` says, or 124 for a time-out.
    """
    parser = _Parser(description=f"A stage of a clara-wf workflow. {execute.__doc__ or ''}")
    arguments(parser)
    options: argparse.Namespace | UsageError
    try:
        options = parser.parse_args(argv)
    except UsageError as fault:
        options = fault  # told below, with a lock, so that nobody waits for this stage
    try:
        contract = Contract.read(environment)
    except UsageError as fault:
        print(fault, file=sys.stderr)  # noqa: T201 - there is no log before there is a contract
        return fault.exit_code
    with logging_to(contract.stage, contract.job_id, contract.log) as log:
        stage = _Stage(contract, log, owns_process=owns_process)
        return stage.live(options, prepare, execute, cleanup)


class _Parser(argparse.ArgumentParser):
    """A parser that raises where argparse exits: a stage that ends has to leave a lock."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"the stage's arguments are wrong: {message}")


def _explain(fault: BaseException) -> tuple[str, int]:
    """Say in one line why a stage failed, and with which exit code it ends.

    A foreign error may quote what it read, and that may be a patient's: of such an error only its type is told. The log
    has the trace, which names the place.
    """
    match fault:
        case ClaraError():
            return str(fault), fault.exit_code
        case MemoryError():
            return f"out of memory: {fault}" if str(fault) else "out of memory", 1
        case OSError():
            return _os_error(fault), 1
        case KeyboardInterrupt():
            return "canceled", JobCanceled.exit_code
        case SystemExit():
            code = fault.code if isinstance(fault.code, int) and fault.code else 1
            return "ended itself by sys.exit, in place of returning", code
        case _:
            return f"unexpected {type(fault).__name__}; the log of the stage has the trace", 1


def _os_error(fault: OSError) -> str:
    """Say what the system refused, without a path that a patient id may be part of."""
    return f"{fault.strerror or type(fault).__name__} (errno {fault.errno})"


class _Stage:
    """One life of a stage."""

    def __init__(self, contract: Contract, log: logging.Logger, *, owns_process: bool) -> None:
        self._contract = contract
        self._log = log
        self._owns_process = owns_process
        self._started = now()
        # The watchdog's thread and the main one may both want the last word: the first has it.
        self._mutex = threading.Lock()
        self._has_spoken = False
        self._concluding = False
        self._canceled_early = False

    def live(
        self,
        options: argparse.Namespace | UsageError,
        prepare: Callable[[StageContext], Prepared],
        execute: Callable[[StageContext, Prepared], None],
        cleanup: Callable[[StageContext, Prepared], None],
    ) -> int:
        """Run the stage to its end, leave its lock, and return its exit code."""
        try:
            try:
                if isinstance(options, UsageError):
                    raise options
                self._work(self._context(options), prepare, execute, cleanup)
            finally:
                self._concluding = True  # from here on SIGTERM is too late
        except (Exception, KeyboardInterrupt, SystemExit) as fault:  # noqa: BLE001 - without a lock the others wait on
            if not isinstance(fault, ClaraError):
                self._log.debug("trace", exc_info=True)
            message, exit_code = _explain(fault)
            self._say("failed", message)
            return exit_code
        return 0 if self._say("completed", "") else 1

    def _context(self, options: argparse.Namespace) -> StageContext:
        contract, log = self._contract, self._log
        return StageContext(
            stage=contract.stage,
            job_id=contract.job_id,
            job_name=contract.job_name,
            app_dir=contract.app_dir,
            inputs=contract.inputs,
            outputs=contract.outputs,
            options=options,
            trtis_uri=contract.trtis_uri,
            image=contract.image,
            log=log,
            report_progress=lambda fraction, text: log.info(text, extra={"progress": round(fraction, 4)}),
        )

    def _work(
        self,
        context: StageContext,
        prepare: Callable[[StageContext], Prepared],
        execute: Callable[[StageContext, Prepared], None],
        cleanup: Callable[[StageContext, Prepared], None],
    ) -> None:
        """Prepare, wait, execute, clean up, and look whether there is a result."""
        if self._owns_process:
            signal.signal(signal.SIGTERM, self._canceled)
        context.output_folder.mkdir(parents=True, exist_ok=True)
        prepared = prepare(context)
        try:
            self._end_if_canceled()
            awaited = self._contract.wait or self._contract.input_lock
            if awaited is not None:
                wait_for(awaited, timeout=self._contract.timeout)
            self._log.info("working", extra={"state": "working"})
            watchdog = self._watch()
            try:
                execute(context, prepared)
            finally:
                watchdog.cancel()
        except BaseException:
            self._clean_up_after_failure(context, prepared, cleanup)
            raise
        cleanup(context, prepared)
        if not any(not entry.name.startswith(UNFINISHED) for entry in context.output_folder.iterdir()):
            raise StageFailed("completed, but left nothing in its output folder")

    def _clean_up_after_failure(
        self, context: StageContext, prepared: Prepared, cleanup: Callable[[StageContext, Prepared], None]
    ) -> None:
        """Clean up without hiding why the stage failed."""
        try:
            cleanup(context, prepared)
        except Exception:  # noqa: BLE001 - the failure before this one is what is told
            self._log.debug("the cleanup failed too", exc_info=True)

    def _watch(self) -> threading.Timer:
        """Start the watchdog that ends a stage which works for too long.

        A hang in compiled code never comes back to Python's signal handlers, so the watchdog is a thread and ends the
        process itself. Code that holds the interpreter's lock for ever stops the watchdog too: the runner ends that.
        """
        seconds = self._contract.timeout

        def end() -> None:
            fault = StageTimeout(f"worked for more than {seconds:g} s, its time-out")
            if self._say("failed", str(fault)):
                logging.shutdown()
                os._exit(TIMEOUT_EXIT_CODE)

        watchdog = threading.Timer(seconds or 0.0, end)
        watchdog.daemon = True
        if seconds is not None and self._owns_process:
            watchdog.start()
        return watchdog

    def _say(self, state: Literal["completed", "failed"], message: str) -> bool:
        """Log the last word and leave it as the lock; return whether it stands."""
        with self._mutex:
            if self._has_spoken:
                return False
            self._has_spoken = True
            lock = Lock(
                stage=self._contract.stage,
                state=state,
                message=message,
                started=self._started,
                ended=now(),
                image=self._contract.image,
            )
            try:
                lock.write(self._contract.lock)
            except OSError as fault:
                # Nobody reads this word but the runner, which sees the exit code too.
                self._log.error(f"the lock cannot be written: {_os_error(fault)}", extra={"state": "failed"})
                return state == "failed"
            level = logging.INFO if state == "completed" else logging.ERROR
            self._log.log(level, message or state, extra={"state": state})
            return True

    def _end_if_canceled(self) -> None:
        """Raise again what code that was being imported may have swallowed."""
        if self._canceled_early:
            raise KeyboardInterrupt

    def _canceled(self, signal_number: int, frame: object) -> None:  # noqa: ARG002 - a signal handler's signature
        # Not an Exception: the signal may come while a library (logging, for one) catches all of these and goes on.
        if not self._concluding:
            self._concluding = self._canceled_early = True
            raise KeyboardInterrupt
