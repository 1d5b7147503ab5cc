"""`python -m bench.steering`: does guidance steer text, by the word of an independent judge?"""

from bench.steering.run import main

if __name__ == "__main__":
    main()
