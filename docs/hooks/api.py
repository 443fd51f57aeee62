"""What mkdocstrings does not know of this library: links written as Sphinx roles, functions called as their module."""

import ast
import importlib
import inspect
import re
from pathlib import Path
from typing import Any

import griffe

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = [
    *("fusion_nets.clinical", "fusion_nets.clinical.dicom", "fusion_nets.datalists", "fusion_nets.registration"),
    *("fusion_nets.bids", "fusion_nets.simulation", "fusion_nets.drawing", "fusion_nets.transforms"),
    *("fusion_nets.workflows", "fusion_nets.receiving"),
    *("fusion_nets.networks", "fusion_nets.losses", "fusion_nets.text", "fusion_nets.text.ofa", "fusion_nets.files"),
    *("evaluation", "evaluation.observers", "evaluation.report"),
]
"""What has a page of its own."""

ROLE = re.compile(r":(?:class|func|meth|data|mod|attr):`~?\.?([^`]+)`")


class Roles(griffe.Extension):
    """Turns ``:func:`name` `` into a link where the name has a place in the reference, and into code elsewhere."""

    def __init__(self) -> None:
        self.public = {f"{package}.{name}" for package in PACKAGES for name in public_names(package)}

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Rewrite the docstrings, then show functions that are called as their module is, as Python does."""
        self._rewrite(pkg)
        for package in PACKAGES:
            if package.partition(".")[0] == pkg.name:
                module = pkg[package.partition(".")[2]] if "." in package else pkg
                names = public_names(package)
                _show_made(module, names)
                for name in names:
                    if module.members[name].is_alias:
                        module.members[name].resolve_target()  # its module may be hidden below
                for name in names:
                    member = module.members[name]
                    shown = member.final_target if member.is_alias else member
                    if shown.is_module:
                        module.set_member(name, griffe.Alias(name, shown.members[name], parent=module))

    def _rewrite(self, obj: griffe.Object) -> None:
        if obj.docstring:
            obj.docstring.value = ROLE.sub(lambda role: self._link(role[1], obj.path), obj.docstring.value)
        for member in obj.members.values():
            if not member.is_alias:
                self._rewrite(member)

    def _link(self, name: str, where: str) -> str:
        for package in ("", *(package for package in PACKAGES if where.startswith(f"{package}."))):
            target = f"{package}.{name}".lstrip(".")
            if self._known(target):
                return f"[`{name.rpartition('.')[2]}`][{target}]"
        return f"`{name}`"

    def _known(self, target: str) -> bool:
        return target in self.public or target.rpartition(".")[0] in self.public


def _show_made(module: griffe.Module, names: list[str]) -> None:
    """Show classes that follow from a table, and so do not stand in the text of any module."""
    for name in (name for name in names if name not in module.members):
        made = getattr(importlib.import_module(module.path), name)
        base = made.__mro__[1]
        home = module[made.__module__.removeprefix(f"{module.path}.")]
        docstring = griffe.Docstring(inspect.cleandoc(made.__doc__), parser="google")
        home.set_member(name, griffe.Class(name, bases=[f"{base.__module__}.{base.__name__}"], docstring=docstring))
        module.set_member(name, griffe.Alias(name, home.members[name], parent=module))
    module.exports = list(names)


def public_names(package: str) -> list[str]:
    """What a package or module has in its ``__all__``."""
    path = ROOT / package.replace(".", "/")
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            try:
                return ast.literal_eval(node.value)
            except ValueError:  # computed
                return list(importlib.import_module(package).__all__)
    raise ValueError(f"{package} has no __all__")
