"The controller."
from vdb.streaming.control import controller


@controller('halfway')
class Halfway:
    "The middle of the ladder."
    def __init__(self, ladder): self.level = len(ladder)//2
    def choose(self, state) -> int: return self.level
