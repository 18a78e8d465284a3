"""`python -m graphtorch`: the same as the `graphtorch` command."""

from graphtorch.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
