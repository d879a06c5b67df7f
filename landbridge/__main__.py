"""The `landbridge` command, also as `python -m landbridge`."""

from __future__ import annotations

import sys


def main() -> int:
    """Run the command line. A Ctrl-C that comes while it is still being imported ends it as quietly as a later one."""
    try:
        from landbridge.cli import main as run

        return run()
    except KeyboardInterrupt:
        return 130  # cli.INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
