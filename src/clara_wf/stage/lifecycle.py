"""The lifecycle of a stage: prepare, wait, execute, clean up, leave a lock."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import NoReturn, TypeVar

from clara_wf.model.errors import ClaraError, JobCanceled, StageTimeout, UsageError
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
) -> int:
    """Run a stage under the contract, as `main` does, and return the exit code: 0, or 1 to 3 as `ClaraError` says."""
    parser = argparse.ArgumentParser(description=f"A stage of a clara-wf workflow. {execute.__doc__ or ''}")
    arguments(parser)
    options = parser.parse_args(argv)
    try:
        contract = Contract.read(environment)
    except UsageError as fault:
        print(fault, file=sys.stderr)  # noqa: T201 - there is no log before there is a contract
        return fault.exit_code
    with logging_to(contract.stage, contract.job_id, contract.log) as log:
        stage = _Stage(contract, options, log)
        try:
            stage.live(prepare, execute, cleanup)
        except ClaraError as fault:
            return stage.fail(str(fault), fault.exit_code)
        except MemoryError as fault:
            return stage.fail(f"out of memory: {fault}", 1)
        except OSError as fault:
            log.debug("trace", exc_info=True)
            return stage.fail(_os_error(fault), 1)
        except Exception as fault:
            # A foreign error may quote what it read, and that may be a patient's: the trace names the place.
            log.debug("trace", exc_info=True)
            return stage.fail(f"unexpected {type(fault).__name__}; the log of {contract.stage} has the trace", 1)
        stage.complete()
    return 0


def _os_error(fault: OSError) -> str:
    """Say what the system refused, without a path that a patient id may be part of."""
    return f"{fault.strerror or type(fault).__name__} (errno {fault.errno})"


class _Stage:
    """One life of a stage."""

    def __init__(self, contract: Contract, options: argparse.Namespace, log: logging.Logger) -> None:
        self._contract = contract
        self._log = log
        self._started = now()
        self._context = StageContext(
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

    def live(
        self,
        prepare: Callable[[StageContext], Prepared],
        execute: Callable[[StageContext, Prepared], None],
        cleanup: Callable[[StageContext, Prepared], None],
    ) -> None:
        """Prepare, wait, execute, clean up."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, _canceled)
        context = self._context
        context.output_folder.mkdir(parents=True, exist_ok=True)
        prepared = prepare(context)
        try:
            awaited = self._contract.wait or self._contract.input_lock
            if awaited is not None:
                wait_for(awaited, timeout=self._contract.timeout)
            self._log.info("working", extra={"state": "working"})
            watchdog = self._watch()
            try:
                execute(context, prepared)
            finally:
                watchdog.cancel()
        finally:
            cleanup(context, prepared)

    def _watch(self) -> threading.Timer:
        """Start the watchdog that ends a stage which works for too long.

        A hang in compiled code never comes back to Python's signal handlers, so the watchdog is a thread and ends the
        process itself.
        """
        seconds = self._contract.timeout

        def end() -> None:
            fault = StageTimeout(f"worked for more than {seconds:g} s, its time-out")
            self.fail(str(fault), TIMEOUT_EXIT_CODE)
            logging.shutdown()
            os._exit(TIMEOUT_EXIT_CODE)

        watchdog = threading.Timer(seconds or 0.0, end)
        watchdog.daemon = True
        if seconds is not None:
            watchdog.start()
        return watchdog

    def complete(self) -> None:
        """Leave the lock that says so."""
        self._log.info("completed", extra={"state": "completed"})
        self._leave(Lock(stage=self._contract.stage, state="completed"))

    def fail(self, message: str, exit_code: int) -> int:
        """Leave the lock that says so, and return the exit code."""
        self._log.error(message, extra={"state": "failed"})
        self._leave(Lock(stage=self._contract.stage, state="failed", message=message))
        return exit_code

    def _leave(self, lock: Lock) -> None:
        Lock(
            stage=lock.stage,
            state=lock.state,
            message=lock.message,
            started=self._started,
            ended=now(),
            image=self._contract.image,
        ).write(self._contract.lock)


def _canceled(signal_number: int, frame: object) -> NoReturn:  # noqa: ARG001
    raise JobCanceled("canceled")
