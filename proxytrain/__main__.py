"""The command `proxytrain`, and `python -m proxytrain`: an interrupt while it still imports is no traceback either."""

import sys


def main() -> int:
    try:
        from proxytrain.cli import main as run

        return run()
    except KeyboardInterrupt:
        print("interrupted; the same command goes on", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
