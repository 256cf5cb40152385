"""``python -m tellwire``: the same as the command ``tellwire``."""

from tellwire.cli import main

if __name__ == "__main__":
    main()
