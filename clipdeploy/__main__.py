"""`python -m clipdeploy` is the `clipdeploy` command."""

from __future__ import annotations

from clipdeploy.cli import main

if __name__ == "__main__":
    main()
