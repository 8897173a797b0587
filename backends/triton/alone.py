"""One kernel of a ``kernels.py`` as a module of its own: what it calls, without comments.

Names that count the kernels of a program are taken out, so that equal kernels are equal texts
whatever program they come from, and one binary serves them all.
"""

from __future__ import annotations

import ast
import re

__all__ = ["KERNEL", "Module"]

#: what the kernel is called in its own module
KERNEL = "kernel"

#: a name that has a program's number of the kernel in it: convolution_3, convolution_3_tile
_NUMBERED = re.compile(r".+_\d+(_[a-z]+)?")


class Module:
    """The parts of a ``kernels.py``."""

    def __init__(self, source: str) -> None:
        self.imports: list[ast.stmt] = []
        #: name -> its definition, in the order of the text
        self.defined: dict[str, ast.stmt] = {}
        for statement in ast.parse(source).body:
            match statement:
                case ast.Import() | ast.ImportFrom():
                    self.imports.append(statement)
                case ast.FunctionDef(name=name):
                    self.defined[name] = statement
                case ast.Assign(targets=[ast.Name(id=name)]):
                    self.defined[name] = statement
        self._uses = {
            name: {n.id for n in ast.walk(s) if isinstance(n, ast.Name)} & self.defined.keys()
            for name, s in self.defined.items()
        }

    def alone(self, name: str) -> str:
        """The kernel as ``KERNEL``, below all that it needs."""
        needed = {name}
        waiting = [name]
        while waiting:
            for used in self._uses[waiting.pop()] - needed:
                needed.add(used)
                waiting.append(used)
        new = {name: KERNEL}
        for other in self.defined:
            if other in needed and other != name and _NUMBERED.fullmatch(other):
                new[other] = f"part{len(new)}"
        text = "\n".join(
            ast.unparse(statement)
            for statement in (*self.imports, *(s for n, s in self.defined.items() if n in needed))
        )
        # names of a program have letters, digits and underscores alone, and are no one's attribute
        if new:
            pattern = re.compile(rf"(?<![\w.'])({'|'.join(map(re.escape, new))})(?!\w)")
            text = pattern.sub(lambda m: new[m[1]], text)
        return text + "\n"
