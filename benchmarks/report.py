"""The machine, the table and the files of a benchmark run."""

from __future__ import annotations

import datetime as dt
import json
import os
import platform
import tempfile
from pathlib import Path
from typing import Any

__all__ = ["machine", "markdown", "write_json", "write_text"]


def machine() -> dict[str, Any]:
    """Processor, cores, operating system and Python."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "time": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    wanted = ("model name", "cpu family", "model", "stepping")
    found: dict[str, str] = {}
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() in wanted:
            found.setdefault(key.strip(), value.strip())
    name = found.pop("model name", platform.machine())
    return f"{name} ({', '.join(f'{k} {v}' for k, v in found.items())})" if found else name


def markdown(document: dict[str, Any]) -> str:
    """One row a peer and case; a peer that failed keeps its row, with the reason."""
    about = document["machine"]
    lines = [
        f"{about['processor']}, {document['threads']} threads, Python {about['python']}, "
        f"{about['time']}; {document['rounds']} rounds",
        "",
        "| case | peer | median | p10 | p90 | ÷ ours | quiet turns | build + first step |",
        "|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    seen: dict[str, str] = {}
    for case in document["cases"]:
        title = f"{case['network']}:{case['batch']} {case['mode']}"
        ours = next(
            (
                row["median_s"]
                for row in case["results"]
                if row["peer"].startswith("brickc") and not row["error"]
            ),
            None,
        )
        for row in case["results"]:
            seen |= row.get("versions", {})
            if row["error"]:
                text = row["error"].replace("|", "\\|").replace("\n", " ")
                lines.append(f"| {title} | {row['peer']} | error: {text} | | | | | |")
                continue
            ratio = f"{row['median_s'] / ours:.2f}" if ours else "–"
            lines.append(
                f"| {title} | {row['peer']} | {_time(row['median_s'])} | {_time(row['p10_s'])} "
                f"| {_time(row['p90_s'])} | {ratio} "
                f"| {row['quiet_turns']} of {len(row['turns'])} | {row['compile_s']:.2f} s |"
            )
    lines += ["", "; ".join(f"{name} {version}" for name, version in sorted(seen.items())), ""]
    return "\n".join(lines)


def _time(seconds: float) -> str:
    if seconds < 1e-3:
        return f"{seconds * 1e6:.1f} µs"
    return f"{seconds * 1e3:.3f} ms" if seconds < 0.1 else f"{seconds * 1e3:.1f} ms"


def write_json(path: Path, document: dict[str, Any]) -> None:
    """Write a JSON file, complete or not at all."""
    write_text(path, json.dumps(document, indent=2, sort_keys=True) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a text file, complete or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
