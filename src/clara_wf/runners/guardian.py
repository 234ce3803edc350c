"""Ends the processes of a run whose runner is gone. A program of its own, and functions that it shares with runners.

The runner starts it beside the stages, in a session of its own, and tells it on standard input which process groups
live (`+<id>`) and which are over (`-<id>`). When the input ends without `bye`, the runner was killed: everything is
ended.

Run with `python -I -S`, so only the standard library is imported here, and little of that.
"""

from __future__ import annotations

import os
import signal
import sys
import time

#: Every process of a run carries this variable, `<nonce>.<number of its stage>.`: who left the group is found by it.
MARK = "CLARA_WF_RUN"
#: A stage that starts processes faster than they are ended is met by looking again, this often at most.
_ROUNDS = 50


def marked(mark: str) -> list[int]:
    """Return the processes whose mark begins like this (Linux; elsewhere none are found)."""
    wanted = f"{MARK}={mark}".encode()
    found = []
    try:
        entries = os.listdir("/proc")  # noqa: PTH208 - pathlib is more than this program needs
    except OSError:
        return []
    for name in entries:
        if name.isdigit() and int(name) != os.getpid():
            try:
                with open(f"/proc/{name}/environ", "rb") as file:  # noqa: PTH123 - same
                    content = file.read()
            except OSError:  # another user's, or gone
                continue
            if any(variable.startswith(wanted) for variable in content.split(b"\0")):
                found.append(int(name))
    return found


def signal_group(group: int, number: int) -> None:
    """Send a signal to a process group that may be gone."""
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):  # macOS refuses where only zombies are left
        return


def kill_all(groups: set[int], mark: str) -> None:
    """End process groups, and whatever else carries the mark, without asking."""
    for group in groups:
        signal_group(group, signal.SIGKILL)
    for _ in range(_ROUNDS):
        left = marked(mark)
        if not left:
            return
        for process in left:
            try:
                os.kill(process, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.01)


def _main(mark: str) -> None:
    groups: set[int] = set()
    for line in sys.stdin:
        if line == "bye\n":
            return
        change, group = line[0], int(line[1:])
        if change == "+":
            groups.add(group)
        else:
            groups.discard(group)
    kill_all(groups, mark)


if __name__ == "__main__":
    _main(sys.argv[1])
