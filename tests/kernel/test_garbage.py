"""What a process has for good is not looked through for garbage; what comes after it is collected as ever."""

from __future__ import annotations

import subprocess
import sys

_TRIED = """
import gc, weakref
from tenantry.kernel.garbage import keep_what_there_is

class Knot:
    def __init__(self):
        self.itself = self

gone, kept = Knot(), Knot()
before, during = weakref.ref(gone), weakref.ref(kept)
del gone
keep_what_there_is()
assert before() is None, "what was garbage then is not kept"
assert gc.get_freeze_count() > 1000
later = Knot()
after = weakref.ref(later)
del later, kept
gc.collect()
assert after() is None, "what is made afterwards is collected"
assert during() is not None, "what was there then is not looked at"
"""


def test_only_what_is_made_afterwards_is_collected() -> None:
    # In a process of its own: nothing takes it back.
    subprocess.run([sys.executable, "-c", _TRIED], check=True, timeout=60)
