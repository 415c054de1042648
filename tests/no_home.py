import os
from pathlib import Path

NO_HOME = Path(os.devnull, "home")
"""For tests that write no state: nothing can be written there."""
