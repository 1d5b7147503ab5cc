"""`python -m bench.steering`: does guidance steer text, by the word of an independent judge?"""
