"""`python -m clara_wf` is the command line."""

from clara_wf.cli import main

if __name__ == "__main__":
    main()
