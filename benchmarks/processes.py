"""Children that take turns: started, asked, and held still while another is timed."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

__all__ = [
    "Child",
    "ChildError",
    "Watch",
    "available_cores",
    "die_with_parent",
    "pin",
    "wait_for_quiet",
]

#: a shell may set these to an older processor's kernels, which halves NumPy's matmul
_CLEARED = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
_THREADS = (
    "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS",
)  # fmt: skip


class ChildError(Exception):
    """A peer failed, died or did not answer; the message is one line."""


def available_cores() -> int:
    """Cores that this process may run on."""
    return len(_cores())


def pin(threads: int) -> None:
    """Keep this process on as many cores as it has threads, where the system can.

    XLA has no setting for its threads: it looks at the cores that it may run on. Called in the
    child, before any framework is imported.
    """
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, _cores()[:threads])


def die_with_parent() -> None:
    """Let the kernel end this process when its parent ends, on Linux: one that is held still
    would not notice by itself."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def _cores() -> list[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


class Child:
    """One peer's process; leaving the ``with`` block ends it."""

    def __init__(
        self, arguments: Sequence[str], *, threads: int, wait_policy: str, scratch: Path
    ) -> None:
        scratch.mkdir()
        env = {k: v for k, v in os.environ.items() if k not in _CLEARED}
        env |= dict.fromkeys(_THREADS, str(threads))
        env.pop("OMP_WAIT_POLICY", None)
        if wait_policy != "default":
            env["OMP_WAIT_POLICY"] = wait_policy
        # compile times are those of a first compilation, and leave the user's cache alone
        env["TORCHINDUCTOR_CACHE_DIR"] = str(scratch)

        self._log = (scratch / "stderr.txt").open("w+b")
        script = Path(__file__).with_name("child.py")
        self._process = subprocess.Popen(
            [sys.executable, str(script), *arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, env=env,
            start_new_session=True,
        )  # fmt: skip
        self._buffer = b""
        self._ended = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """End the process and whatever it started; may be called twice."""
        if self._ended:
            return
        self._ended = True
        # the whole session: torch.compile leaves compiler workers behind a killed parent
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._log):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()

    def stop(self) -> None:
        """Hold every thread still: pools that spin while they wait cost the others nothing."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        try:
            os.killpg(self._process.pid, number)
        except ProcessLookupError:
            raise ChildError(self._epitaph()) from None

    def ask(self, order: dict[str, Any], timeout: float) -> dict[str, Any]:
        """Send an order and wait for its answer. Raises ChildError."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise ChildError(self._epitaph()) from None
        return self.receive(timeout)

    def receive(self, timeout: float) -> dict[str, Any]:
        """The next answer. Raises ChildError if there is none within ``timeout`` seconds."""
        stream = self._process.stdout
        assert stream is not None
        deadline = time.monotonic() + timeout
        with selectors.DefaultSelector() as selector:
            selector.register(stream, selectors.EVENT_READ)
            while b"\n" not in self._buffer:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise ChildError(f"no answer within {timeout:.0f} s")
                chunk = os.read(stream.fileno(), 1 << 16)
                if not chunk:
                    raise ChildError(self._epitaph())
                self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise ChildError(str(answer["error"])[:300])
        return answer

    def cpu_seconds(self) -> float | None:
        """Processor time it has used so far, on Linux."""
        try:
            text = Path(f"/proc/{self._process.pid}/stat").read_text()
        except OSError:
            return None
        fields = text.rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def _epitaph(self) -> str:
        code = self._process.wait()
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        last = lines[-1][:200] if lines else "nothing on standard error"
        how = f"signal {-code}" if code < 0 else f"exit status {code}"
        return f"died ({how}): {last}"


class Watch:
    """How much of the processor others use during a turn, so that a disturbed one shows."""

    def __init__(self, child: Child) -> None:
        self._child = child
        self._own = child.cpu_seconds()
        self._busy = _machine_busy()
        self._since = time.monotonic()

    def others(self) -> float | None:
        """Mean cores that all other processes kept busy since then; None if unknown."""
        busy, own = _machine_busy(), self._child.cpu_seconds()
        if busy is None or own is None or self._busy is None or self._own is None:
            return None
        seconds = time.monotonic() - self._since
        return max(0.0, (busy - self._busy - (own - self._own)) / seconds)


def wait_for_quiet(limit: float, patience: float) -> float:
    """Wait until others use at most ``limit`` cores over 0.2 seconds, for at most ``patience``
    seconds; gives the seconds waited. Meant for when all children are stopped."""
    began = time.monotonic()
    while (before := _machine_busy()) is not None:
        waited = time.monotonic() - began
        if waited >= patience:
            break
        time.sleep(0.2)
        after = _machine_busy()
        if after is None or (after - before) / 0.2 <= limit:
            break
    return time.monotonic() - began


def _machine_busy() -> float | None:
    """Seconds of all cores together that were not idle since boot, on Linux."""
    try:
        fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    except OSError:
        return None
    user, nice, system, _, _, irq, softirq, steal = map(int, fields)
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
