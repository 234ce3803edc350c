"""Not a stage of its own: carries a payload from a bucket to the stages of a pod, and what they made back.

`in` fetches the job's folder before the stages start. `out` waits for the last stage's lock and sends the outputs, then
logs and locks: a lock in the bucket says that the output is there. Where the last stage failed, or the outputs cannot
be sent, it sends logs and the locks that say `failed`, and fails. INPUTS and OUTPUTS are the whole payload; the keys of
the bucket are in the environment, and nowhere else.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from clara_wf.bucket import Moved, fetch, send, wait_for
from clara_wf.model.locks import Lock, now
from clara_wf.stage import StageContext, main

_SHARED = ("logs", "locks")  # locks last: they are what others wait for


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of both directions."""
    parser.add_argument("direction", choices=("in", "out"), help="from the bucket, or to it")
    parser.add_argument("--url", required=True, help="the job's folder in the bucket: s3://bucket/prefix/job-id")
    parser.add_argument("--endpoint", default="", help="http://host:port of a server that is not AWS")
    parser.add_argument(
        "--skip",
        action="append",
        default=[],
        metavar="FOLDER",
        help="in: do not fetch this folder of the payload, but make it; may be given several times",
    )
    parser.add_argument(
        "--wait", default="", metavar="LOCK", help="in: wait until the bucket holds locks/LOCK, and make it here"
    )
    parser.add_argument(
        "--folder",
        action="append",
        default=[],
        metavar="FOLDER",
        help="out: send this folder of the payload; may be given several times",
    )


@dataclass
class Delivery:
    """How far it came."""

    done: bool = False  # all outputs are in the bucket


def prepare(context: StageContext) -> Delivery:  # noqa: ARG001 - every stage is given its context
    """Nothing is in the bucket yet."""
    return Delivery()


def execute(context: StageContext, delivery: Delivery) -> None:
    """Fetch the payload, or send what the stages made."""
    if context.options.direction == "in":
        _fetch(context)
    else:
        _send(context)
    delivery.done = True


def _fetch(context: StageContext) -> None:
    options, payload = context.options, context.output_folder
    if options.wait:
        context.progress(0.0, "waiting for the payload")
        wait_for(f"{options.url}/locks/{options.wait}", options.endpoint)  # for as long as TIMEOUT allows
    moved = fetch(
        options.url,
        payload,
        options.endpoint,
        skip=options.skip,
        progress=lambda done: context.progress(done, "fetching"),
    )
    for folder in options.skip:
        # Where the kubelet makes them, they belong to root.
        (payload / folder).mkdir(parents=True, exist_ok=True)
    if options.wait:
        Lock(stage="input", state="completed", ended=now()).write(payload / "locks" / options.wait)
    context.log.info("fetched %d files, %.1f MB", moved.files, moved.size / 1e6)


def _send(context: StageContext) -> None:
    options, payload = context.options, context.input_folder
    moved = Moved()
    folders = [folder for folder in options.folder if (payload / folder).is_dir()]
    for number, folder in enumerate(folders):
        context.progress(number / len(folders), "sending")
        # Stages write there, and must not have this container's own files sent: the keys are in its environment.
        moved += send(payload / folder, f"{options.url}/{folder}", options.endpoint, within=payload)
    context.log.info("sent %d files, %.1f MB", moved.files, moved.size / 1e6)


def cleanup(context: StageContext, delivery: Delivery) -> None:
    """Send what tells how the job went, also where it failed."""
    options, payload = context.options, context.input_folder
    if options.direction == "out":
        # Whoever sees a stage's word that it completed takes its output for whole.
        untrue = [] if delivery.done else [path.name for path in (payload / "locks").glob("*.lock") if _is_good(path)]
        for folder in _SHARED:
            if (payload / folder).is_dir():
                send(payload / folder, f"{options.url}/{folder}", options.endpoint, skip=untrue, within=payload)


def _is_good(path: Path) -> bool:
    """Whether a lock says that its stage completed."""
    lock = Lock.read(path)
    return lock is not None and lock.state == "completed"


if __name__ == "__main__":
    main(execute=execute, prepare=prepare, cleanup=cleanup, arguments=arguments)
