"""`ecgwatch worker` as the demo's child, which ends when its parent is gone, however that died.

The parent holds the other end of standard input; when it closes, this process gets the SIGTERM that it would have sent.
"""

import os
import signal
import sys
import threading

from ecgwatch import cli


def main() -> int:
    """Run the worker with the settings of the environment and return its exit code."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    return cli.main(["worker"])


def _end_with_parent() -> None:
    while os.read(0, 1024):  # not sys.stdin: its lock, held by a daemon thread, would break the interpreter's exit
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
