"""Cases that would take too long or too much memory are not tried."""

import math
from dataclasses import dataclass, field


@dataclass
class Limits:
    """What each row took so far, and which of its cases are left out.

    Attributes
    ----------
    seconds, memory : float
        Most that one call may take: seconds, and bytes.
    refused : list of dict
        The cases that were left out, and why.
    """

    seconds: float = math.inf
    memory: float = math.inf
    refused: list = field(default_factory=list)
    _passed: dict = field(default_factory=dict)
    _stopped: dict = field(default_factory=dict)

    def before(self, operation, row, classes):
        """Return why a case is not to be tried, judging by those of the same row with fewer classes; None: try it."""
        seconds, memory = self._expected(operation, row, classes)
        if classes >= self._stopped.get((operation, row), math.inf):
            reason = "with as many or fewer classes it takes too much already"
        elif seconds > self.seconds:
            reason = f"it would take about {seconds:.3g} s, more than {self.seconds:g} s"
        elif memory > self.memory:
            reason = f"it would need about {memory / 2**30:.3g} GiB, more than {self.memory / 2**30:.3g} GiB"
        else:
            return None
        return self.refuse(operation, row, classes, reason)

    def after(self, operation, row, classes, seconds):
        """Return why a case that was tried once is not to be timed; None: time it."""
        if seconds <= self.seconds:
            return None
        return self.refuse(operation, row, classes, f"it takes {seconds:.3g} s, more than {self.seconds:g} s")

    def note(self, operation, row, classes, seconds, memory):
        """Note what a case took, for the judgement of those with more classes."""
        self._passed.setdefault((operation, row), {})[classes] = (seconds, memory)

    def refuse(self, operation, row, classes, reason):
        """Leave out a case and those of the same row with more classes; return the reason."""
        case = {"measures": operation, "method": row, "classes": classes}
        if not any(case.items() <= known.items() for known in self.refused):
            self.refused.append({**case, "reason": reason})
        self._stopped[operation, row] = min(classes, self._stopped.get((operation, row), math.inf))
        return reason

    def _expected(self, operation, row, classes):
        """Seconds and bytes on the straight line through the two cases with most classes; 0 where there are fewer."""
        passed = sorted(self._passed.get((operation, row), {}).items())
        if len(passed) < 2 or classes <= passed[-1][0]:
            return 0, 0
        (first, before), (last, now) = passed[-2:]
        steps = (classes - last) / (last - first)
        return [value + max(value - earlier, 0) * steps for earlier, value in zip(before, now, strict=True)]
