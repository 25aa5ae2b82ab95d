"""Waiting for something to come true, with a bound and a word about what did not."""

import time


def until(what, predicate, seconds=10):
    """Calls the predicate until it gives something true, and returns that."""
    end = time.monotonic() + seconds
    while True:
        value = predicate()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(0.02)
