"""`python -m spine.supervisor`: what `make up` runs."""

from spine.supervisor.main import main

if __name__ == "__main__":
    main()
