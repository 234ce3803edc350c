"""Ends the processes of a run whose runner is gone. A program of its own, and functions that it shares with runners.

The runner starts it beside the stages, in a session of its own, and tells it on standard input which process groups
live (`+<id>`) and which are over (`-<id>`). When the input ends without `bye`, the runner was killed: everything is
ended. Containers are no processes of the run: how they are listed and removed is told on the command line.

Run with `python -I -S`, so only the standard library is imported here, and little of that.
"""

from __future__ import annotations

import os
import signal
import sys
import time

#: Every process of a run carries this variable, `<nonce>.<number of its stage>.`: who left the group is found by it.
MARK = "CLARA_WF_RUN"
#: What programs that run containers get to end by themselves.
_GRACE_SECONDS = 2.0
#: A daemon that hangs must not hang us.
_ANSWER_SECONDS = 30.0
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


class Removal:
    """How what is no process of this machine is found and removed: containers.

    Parameters
    ----------
    listing : tuple of str
        A command that prints the names of what is there, one a line.
    removing : tuple of str
        A command that, with such names after it, removes them.
    late : float
        Seconds in which more may appear though nobody is alive who asked for it: a daemon works on.
    """

    def __init__(self, listing: tuple[str, ...], removing: tuple[str, ...], *, late: float) -> None:
        self.listing = listing
        self.removing = removing
        self.late = late

    def remove(self) -> None:
        """Remove what is there. A command that fails, hangs or is not there removes nothing."""
        import subprocess  # stages that are processes need no such thing

        def call(*command: str) -> str:
            # Ctrl-C reaches everything of the terminal: not these, in a session of their own.
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                check=True,
                timeout=_ANSWER_SECONDS,
                start_new_session=True,
            )
            return done.stdout.decode(errors="replace")

        try:
            names = call(*self.listing).split()
            if names:
                call(*self.removing, *names)
        except (OSError, subprocess.SubprocessError):
            return

    def remove_late(self) -> None:
        """Remove what is there, and what still appears."""
        end = time.monotonic() + self.late
        while True:
            self.remove()
            if time.monotonic() > end:
                return
            time.sleep(0.1)

    def words(self) -> list[str]:
        """Return it as words of a command line."""
        return [str(self.late), str(len(self.listing)), *self.listing, *self.removing]

    @staticmethod
    def of(words: tuple[str, ...]) -> Removal | None:
        """Read such words; None where there are none."""
        if not words:
            return None
        late, count, *rest = words
        return Removal(tuple(rest[: int(count)]), tuple(rest[int(count) :]), late=float(late))


def _main(mark: str, removal: Removal | None) -> None:
    groups: set[int] = set()
    for line in sys.stdin:
        if line == "bye\n":
            return
        change, group = line[0], int(line[1:])
        if change == "+":
            groups.add(group)
        else:
            groups.discard(group)
    if removal is None:
        kill_all(groups, mark)
        return
    # The containers first, and the programs that run them are asked: one that is killed while it makes a container
    # leaves half of one.
    removal.remove()
    for group in groups:
        signal_group(group, signal.SIGTERM)
    _wait_for(mark, _GRACE_SECONDS)
    removal.remove()
    kill_all(groups, mark)
    removal.remove_late()


def _wait_for(mark: str, seconds: float) -> None:
    """Wait until no process carries the mark, at most so long."""
    end = time.monotonic() + seconds
    while marked(mark) and time.monotonic() < end:
        time.sleep(0.02)


if __name__ == "__main__":
    _main(sys.argv[1], Removal.of(tuple(sys.argv[2:])))
