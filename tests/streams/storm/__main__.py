"""Plays more seeds than the tests do: `python -m tests.streams.storm 1000 2000`, or one of them with its trace."""

import argparse
import sys

from tests.streams.storm.play import play


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="tests.streams.storm", description=__doc__)
    parser.add_argument("first", type=int, help="seed")
    parser.add_argument("end", type=int, nargs="?", help="the seed behind the last one; absent: one, with its trace")
    args = parser.parse_args()
    bad = 0
    for seed in range(args.first, args.end or args.first + 1):
        played = play(seed)
        lines = [f"seed {seed}: {what}" for what in played.violations]
        bad += bool(lines)
        if args.end is None:
            lines = [str(played.plan), *played.trace, *lines]
        sys.stdout.write("".join(f"{line}\n" for line in lines))
        sys.stdout.flush()
    sys.stdout.write(f"{bad} seeds have violations\n")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
