"""A server that has too much to do for a while, and says for how long."""

import email.utils
import math
import time


class Busy:
    """From the first question on, for so many seconds. say: "seconds" or "date", how Retry-After is written."""

    def __init__(self, seconds, say="seconds"):
        self.seconds, self.say, self.until = seconds, say, None

    def now(self):
        if self.until is None:
            self.until = time.time() + self.seconds
        return time.time() < self.until

    def headers(self):
        if self.say == "date":
            return {"Retry-After": email.utils.formatdate(math.ceil(self.until), usegmt=True)}
        return {"Retry-After": str(math.ceil(self.seconds))}
