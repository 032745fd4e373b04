"""`python -m lmmjax.cli`."""

from lmmjax.cli import main

if __name__ == "__main__":
    main()
