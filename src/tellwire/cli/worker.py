"""A worker of ``tellwire serve --workers N``, which starts it (see `tellwire.workers.worker`)."""

from __future__ import annotations

from tellwire.cli.start import set_up_logging
from tellwire.workers.worker import main

if __name__ == "__main__":
    main(set_up_logging)
