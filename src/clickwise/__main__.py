"""The command `clickwise`, and `python -m clickwise`."""

import signal


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # until `cli` listens: Ctrl-C is no traceback out of an import
    from clickwise.cli import main

    main()


if __name__ == "__main__":
    main()
