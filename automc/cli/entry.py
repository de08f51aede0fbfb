"""What the installed command runs: an interruption while Python still imports is no traceback either."""

from __future__ import annotations

import signal
import sys
from typing import NoReturn


def main() -> NoReturn:
    """Run the command line; exit 5 where Ctrl-C comes before it stands."""
    try:
        from automc.cli.main import main as run

        run()
    except KeyboardInterrupt:
        print("automc: interrupted before anything began", file=sys.stderr)
        sys.exit(5)  # RunInterrupted.exit_code, which may not have been imported
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # all is said: what still unloads keeps the exit code


if __name__ == "__main__":
    main()
