"""Makes `python -m gateways.cli` the same as `penstock`: programs that start others use it, whatever is on the PATH."""

from gateways.cli.main import main

if __name__ == "__main__":
    main()
