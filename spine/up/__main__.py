"""`python -m spine.up`: what `make up` runs."""

from spine.up.main import main

if __name__ == "__main__":
    main()
