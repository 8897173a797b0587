"""Writes docs/onnx-coverage.md: the ONNX backend suite on brickc, operator by operator.

Run it after a change to an importer, a brick or a backend, with the test extras installed. It
ends with status 1 and the reasons if a case is wrong.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "support"))


def main() -> int:
    from onnx_suite import judge_all, table

    verdicts = judge_all()
    (ROOT / "docs" / "onnx-coverage.md").write_text(table(verdicts), encoding="utf-8")
    wrong = [v for v in verdicts if v.result == "wrong"]
    for v in wrong:
        sys.stderr.write(f"{v.case.name}: {v.reason}\n")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
