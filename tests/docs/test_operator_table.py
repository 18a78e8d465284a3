"""docs/operators.md says what the records say."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


def test_the_table_is_up_to_date() -> None:
    # In a process of its own: other tests register records of theirs.
    tool = ROOT / "tools" / "make_operator_table.py"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run([sys.executable, str(tool), "--check"], env=environment, timeout=120)
    assert result.returncode == 0, "run `python tools/make_operator_table.py`"
