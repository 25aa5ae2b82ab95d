"""Waiting for something to come true, with a bound and a word about what did not."""

import time


class Limit:
    """A time for others to come to an end in. A pause in which this process did not get to look either (the machine was
    busy, or stood still) counts as one look: others did not get to run then."""

    def __init__(self, seconds):
        self.left, self.before = seconds, time.monotonic()

    def over(self):
        now = time.monotonic()
        self.left -= min(now - self.before, 0.03)
        self.before = now
        return self.left <= 0


def until(what, predicate, seconds=30):
    """Calls the predicate until it gives something true, and returns that."""
    limit = Limit(seconds)
    while True:
        value = predicate()
        if value:
            return value
        if limit.over():
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(0.02)
