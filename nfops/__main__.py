"""`python -m nfops` is the command `nfops`."""

from nfops.cli.main import run

if __name__ == "__main__":
    run()
