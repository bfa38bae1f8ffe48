"""The command `proxytrain`, and `python -m proxytrain`: an interrupt is one line and exit code 130, whenever it comes.

While modules are imported that takes care: one that is broken off may raise an error of its own instead (numpy does),
and Python ends itself by the signal where the interrupt came from within `exec`.
"""

import os
import signal
import sys
from contextlib import suppress

SAID = "interrupted; the same command goes on"
interrupted = False


def main() -> int:
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)
    try:
        from proxytrain.cli.main import main as run

        code = run()
    except BaseException as error:
        if not interrupted or isinstance(error, SystemExit):
            raise
        print(SAID, file=sys.stderr)
        code = 130
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is over
    if interrupted and code == 130:
        with suppress(OSError):  # a pipe that nobody reads
            sys.stdout.flush()
        os._exit(code)
    return code


def _interrupt(number: int, frame: object) -> None:
    """Python's own handler, but remembered."""
    global interrupted
    interrupted = True
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
