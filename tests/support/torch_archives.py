"""Files of ``torch.export.save``, and ways to spoil them."""

from __future__ import annotations

import copy
import json
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

__all__ = ["Small", "edited", "entries", "paths_of", "replaced", "save"]


class Small(nn.Module):
    """A little of everything that a file can hold: both kinds of leaves, a constant, writes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.bn = nn.BatchNorm2d(4)
        self.fc = nn.Linear(4 * 4 * 4, 10)
        self.register_buffer("scale", torch.full((4, 1, 1), 0.5))

    def forward(self, x: Any) -> Any:
        y = torch.relu(self.bn(self.conv(x))) * self.scale
        y = nn.functional.max_pool2d(y, 2)
        y = torch.cat([y[:, :2], y[:, 2:] + torch.tensor([1.0, 2.0, 3.0, 4.0])], 1)
        return self.fc(nn.functional.dropout(y, 0.5, self.training).flatten(1))


def save(module: nn.Module, example: Any, path: Path, **options: Any) -> Any:
    """The module's file; options are torch.export.export's. Gives the exported program."""
    program = torch.export.export(module, (example,), **options)
    torch.export.save(program, path)
    return program


def entries(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {i.filename: archive.read(i) for i in archive.infolist()}


def replaced(path: Path, content: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    """A well-formed archive of that content."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return path


def edited(content: dict[str, bytes], suffix: str, edit: Callable[[Any], None]) -> dict[str, bytes]:
    """The content with one JSON entry changed; ``edit`` gets the parsed document."""
    (name,) = (n for n in content if n.endswith(suffix))
    document = copy.deepcopy(json.loads(content[name]))
    edit(document)
    return {**content, name: json.dumps(document).encode()}


def paths_of(document: Any, prefix: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every value of a JSON document."""
    if prefix:
        yield prefix
    items: Any = ()
    if isinstance(document, dict):
        items = document.items()
    elif isinstance(document, list):
        items = enumerate(document)
    for key, value in items:
        yield from paths_of(value, (*prefix, key))
