"""`penstock batch` that looks every second, not every 30, whether its topics have more partitions or were made anew."""

import producers.log_reader
from gateways.cli.main import main

if __name__ == "__main__":
    producers.log_reader._WIDEN_EVERY_S = 1.0
    main()
