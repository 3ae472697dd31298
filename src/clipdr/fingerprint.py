"""A fingerprint of the code that a command runs, so that Snakemake reruns a stage exactly when its code changed.

It covers the syntax trees of a module and of everything in the same package that it imports, directly or not.
Comments, formatting, docstrings and the texts of errors (strings inside `raise`) are left out, so they rerun nothing.
Given up: imports by computed name, files that are not Python, and other packages (their versions are the environment's
business). The trees' form depends on the Python version, so a new one reruns everything. Standard library only: the
Snakefile calls this in every job.
"""

import ast
import hashlib
from functools import cache
from pathlib import Path

from clipdr.errors import UserError


def fingerprint(module: str, root: Path) -> str:
    """12 hex digits that change when code in the `closure` of `module` does. `root` is the repository folder.

    Raises UserError if there is no such module, or if one of the files is not valid Python.
    """
    digest = hashlib.sha256()
    for name, code in sorted(_codes(module, Path(root)).items()):
        digest.update(f"{name}:{code}\n".encode())
    return digest.hexdigest()[:12]


def own(module: str) -> str:
    """`fingerprint` of a module of the package that is running, for tokens of work that may be resumed."""
    return fingerprint(module, Path(__file__).resolve().parents[2])


def closure(module: str, root: Path) -> list[str]:
    """Sorted names of the modules that `python -m module` may import from its own package, itself included.

    A package stands for its `__init__` and `__main__`. Imports inside functions and under any condition count, and so
    do the `__init__` of all parents.
    """
    return sorted(_codes(module, Path(root)))


def _codes(module: str, root: Path) -> dict[str, str]:
    """Name -> hash of its code, of the modules in the closure."""
    if _file(module, root) is None:
        raise UserError(f"src/{module.replace('.', '/')}.py does not exist; name a module or package under src")
    found: dict[str, str] = {}
    seen, todo = set(), [module, f"{module}.__main__"]
    while todo:
        name = todo.pop()
        if name in seen:
            continue
        seen.add(name)
        if (file := _file(name, root)) is None:
            continue
        todo.append(name.rpartition(".")[0])
        package = name if file.name == "__init__.py" else name.rpartition(".")[0]
        found[name], imports = _parse(file.read_bytes(), file.relative_to(root).as_posix(), package)
        todo += [target for target in imports if target.split(".")[0] == module.split(".")[0]]
    return found


def _file(name: str, root: Path) -> Path | None:
    """The file of a module, or the `__init__.py` of a package; None if there is neither."""
    path = root.joinpath("src", *name.split("."))
    files = (path / "__init__.py", path.with_suffix(".py"))
    return next((file for file in files if name and file.is_file()), None)


@cache  # keyed by the source, so that an edit within a process is seen
def _parse(source: bytes, file: str, package: str) -> tuple[str, tuple[str, ...]]:
    """Hash of the syntax tree without docstrings, and every dotted name that the source may import as a module."""
    try:
        tree = ast.parse(source, file)
    except SyntaxError as error:
        raise UserError(f"{file} line {error.lineno}: {error.msg}; make it valid Python") from None
    imports: list[str] = []
    for node in ast.walk(tree):
        match node:
            case ast.Import() | ast.ImportFrom():
                imports += _imported(node, package)
            case ast.Raise():
                _take_words(node)
            case ast.Module() | ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef():
                if ast.get_docstring(node, clean=False) is not None:
                    del node.body[0]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest(), tuple(imports)


def _take_words(error: ast.Raise) -> None:
    """Take the words out of an error that is raised; which exception it is stays."""
    for call in ast.walk(error):
        if isinstance(call, ast.Call):
            call.args = [_without_words(arg) for arg in call.args]


def _without_words(arg: ast.expr) -> ast.expr:
    text = isinstance(arg, ast.JoinedStr) or (isinstance(arg, ast.Constant) and isinstance(arg.value, str))
    return ast.Constant("") if text else arg


def _imported(node: ast.Import | ast.ImportFrom, package: str) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    base = node.module or ""
    if node.level:
        parents = package.split(".")[: len(package.split(".")) - node.level + 1]
        base = ".".join([*parents, *base.split(".")] if base else parents)
    return [base, *(f"{base}.{alias.name}" for alias in node.names)]  # the name may be a submodule
