"""Run a program as if make were not there: the terminal's keys are its own, and its exit code is ours.

    python scripts/foreground.py PROGRAM [ARGUMENT ...]

Ctrl-C goes to every process of the terminal's foreground group, make included, which then dies of it and reports an
error, however well the program stopped. So the program gets a process group of its own, and that group the terminal.
Without a terminal, or in the background, it simply takes this process's place.
"""

import os
import signal
import subprocess
import sys

TERMINAL = 0


def in_foreground() -> bool:
    return os.isatty(TERMINAL) and os.tcgetpgrp(TERMINAL) == os.getpgrp()


def main() -> int:
    command = sys.argv[1:]
    if not in_foreground():
        os.execvp(command[0], command)  # noqa: S606
    # Taking the terminal back is done from the background, where it would stop us.
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    program = subprocess.Popen(command, process_group=0, restore_signals=True)  # noqa: S603
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, lambda received, _: os.kill(program.pid, received))
    os.tcsetpgrp(TERMINAL, program.pid)
    while True:
        _, status = os.waitpid(program.pid, os.WUNTRACED)
        os.tcsetpgrp(TERMINAL, os.getpgrp())
        if not os.WIFSTOPPED(status):
            code = os.waitstatus_to_exitcode(status)
            program.returncode = code
            return code if code >= 0 else 128 - code
        # Ctrl-Z: stop with it, make as well, so that the shell offers `fg`; and go on with it.
        os.killpg(os.getpgrp(), signal.SIGSTOP)
        if in_foreground():
            os.tcsetpgrp(TERMINAL, program.pid)
        os.killpg(program.pid, signal.SIGCONT)


if __name__ == "__main__":
    sys.exit(main())
