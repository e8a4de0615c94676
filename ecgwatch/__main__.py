"""`python -m ecgwatch`: the same as the `ecgwatch` command."""

from ecgwatch.cli import entry

if __name__ == "__main__":
    entry()
