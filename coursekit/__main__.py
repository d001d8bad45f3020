"""`python -m coursekit`, and `accelerate launch -m coursekit train NAME` for several devices."""

from coursekit.cli import main

if __name__ == "__main__":
    main()
