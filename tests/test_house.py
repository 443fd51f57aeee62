"""The house is laid out as docs/house.md says: who imports whom, no circles, one name for one file."""

import ast
import re
import textwrap
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).resolve().parents[1]
TABLE = re.search(r"## Who may import whom.*?```text\n(.*?)\n```", (ROOT / "docs/house.md").read_text(), re.DOTALL)[1]
LAYERS = [line.split(", ") for line in TABLE.splitlines()]
HEIGHT = {room: -number for number, rooms in enumerate(LAYERS) for room in rooms}


def name_of(file):
    """As it is imported; the app's files as MONAI Label imports them."""
    parts = file.relative_to(ROOT / "bundles/monailabel" if "bundles" in file.parts else ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def code_of(root):
    tops = ("fusion_nets", "evaluation", "bundles/monailabel")
    return {name_of(file): file for top in tops for file in sorted((root / top).rglob("*.py"))}


CODE = code_of(ROOT)


def room_of(module):
    if module.split(".")[0] in ("main", "lib"):
        return "bundles"
    parts = module.split(".")
    return parts[1] if parts[0] == "fusion_nets" and len(parts) > 1 else parts[0]


def imports_of(module, source, is_package, modules):
    """The modules of the house that one imports, wherever in it: inside functions, and for types alone, too."""
    package = module if is_package else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in modules)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            source_module = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                inside = f"{source_module}.{alias.name}"
                if inside in modules or source_module in modules:
                    yield inside if inside in modules else source_module


IMPORTS = {
    module: set(imports_of(module, file.read_text(encoding="utf-8"), file.name == "__init__.py", CODE))
    for module, file in CODE.items()
}


def against_the_table(module, imported):
    """Why an import has no place in the table, or None."""
    here, there = room_of(module), room_of(imported)
    if here == there or imported == "fusion_nets":  # which tells the version alone
        return None
    if HEIGHT[there] >= HEIGHT[here]:
        return f"{module} imports {imported}, and {there} is not below {here}"
    return None


def circle(imports):
    """The modules of one circle, or None."""
    done, way = set(), []

    def follow(module):
        if module in way:
            return way[way.index(module) :]
        if module in done:
            return None
        way.append(module)
        found = next(filter(None, map(follow, sorted(imports.get(module, ())))), None)
        way.pop()
        done.add(module)
        return found

    return next(filter(None, map(follow, sorted(imports))), None)


def test_every_room_has_its_place_in_the_table():
    rooms = {room_of(module) for module in CODE} - {"fusion_nets"}
    assert rooms == set(HEIGHT) - {"torch", "MONAI"}


@pytest.mark.parametrize("room", sorted(set(HEIGHT) - {"torch", "MONAI"}))
def test_who_imports_whom(room):
    modules = [module for module in CODE if room_of(module) == room]
    assert modules
    told = [against_the_table(module, imported) for module in modules for imported in sorted(IMPORTS[module])]
    assert list(filter(None, told)) == []


def test_no_circle_between_files():
    assert circle(IMPORTS) is None


@pytest.mark.parametrize(
    ("module", "source", "told"),
    [
        ("fusion_nets.clinical.nifti", "from fusion_nets.registration import register", "registration is not below"),
        ("fusion_nets.clinical.nifti", "from ..drawing.montage import write_montage", "drawing is not below clinical"),
        ("fusion_nets.networks.dmfnet", "def f():\n    import evaluation.functional", "evaluation is not below"),
        ("fusion_nets.networks.dmfnet", "from evaluation import functional", "evaluation is not below networks"),
        ("evaluation.functional", "from fusion_nets import files", "files is not below evaluation"),
        ("fusion_nets.text.given", "if x:\n    from fusion_nets import workflows", "workflows is not below text"),
        ("fusion_nets.text.given", "from fusion_nets import __version__", None),
        ("fusion_nets.workflows.cases", "from fusion_nets.text.ofa import OFAConfig; import torch", None),
    ],
)
def test_an_arrow_up_is_seen(module, source, told):
    (imported,) = imports_of(module, source, False, CODE)
    reason = against_the_table(module, imported)
    assert told in reason if told else reason is None


def test_a_circle_is_seen():
    code = {"a": "from b import x", "b": "def f():\n    import c", "c": "if types:\n    from a import y", "d": ""}
    imports = {module: set(imports_of(module, textwrap.dedent(text), False, code)) for module, text in code.items()}
    assert circle(imports) == ["a", "b", "c"]
    assert circle({**imports, "c": {"d"}}) is None


def test_a_file_name_stands_once():
    """But for __init__.py, and the app's main.py; a room and a file have no name in common, either."""
    files = [file for file in CODE.values() if file.name != "__init__.py"]
    folders = {file.parent for file in CODE.values()} - {ROOT}
    names = Counter([file.stem for file in files] + [folder.name for folder in folders])
    assert [name for name, count in names.items() if count > 1] == []


def test_no_file_is_too_long():
    lengths = {module: len(file.read_text(encoding="utf-8").splitlines()) for module, file in CODE.items()}
    assert {module: length for module, length in lengths.items() if length > 400} == {}


def unsafe_calls(source):
    """Calls that make code of what they are given: a string, or a file that is not said to hold tensors alone."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            said = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            if (
                name in ("eval", "exec", "compile", "os.system", "yaml.load")
                or name.split(".")[0] in ("pickle", "joblib", "marshal")
                or (name.endswith("torch.load") and said.get("weights_only") != "True")
                or (name in ("np.load", "numpy.load") and said.get("allow_pickle") == "True")
                or said.get("shell") == "True"
                or said.get("trust_remote_code") == "True"
            ):
                yield ast.unparse(node)


def test_nothing_that_is_read_becomes_code():
    found = {module: list(unsafe_calls(file.read_text(encoding="utf-8"))) for module, file in CODE.items()}
    assert {module: calls for module, calls in found.items() if calls} == {}


def test_what_makes_code_is_seen():
    source = "torch.load(a); torch.load(a, weights_only=False); eval(a); pickle.loads(a); run(a, shell=True)"
    assert len(list(unsafe_calls(source))) == 5
    assert list(unsafe_calls("torch.load(a, weights_only=True); np.load(a, allow_pickle=False); re.compile(a)")) == []


def test_scripts_find_the_library_before_the_tests():
    """tests/evaluation would be taken for the package, where that is installed by a finder behind the path."""
    told = 0
    for file in sorted((ROOT / "tests" / "benchmarks").glob("*.py")):
        lines = re.findall(r"^(?:ROOT = |sys\.path).*$", file.read_text(encoding="utf-8"), re.MULTILINE)
        path = [str(file.parent), "others"]
        exec("\n".join(lines), {"sys": SimpleNamespace(path=path), "Path": Path, "__file__": str(file)})
        if str(ROOT / "tests") in path:
            told += 1
            assert path.index(str(ROOT)) < path.index(str(ROOT / "tests")), file.name
    assert told > 3
