"""`python -m mechint`: the same as the command `mechint`."""

from mechint.cli import main

if __name__ == "__main__":
    main()
