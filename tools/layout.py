"""Figures of the package's layout: `python tools/layout.py` prints them, tests/test_layout.py holds some of them.

An import counts wherever it is written, inside functions too. `selfpab_jax.convert` is in convert/.
"""

import ast
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = {"selfpab_jax": ROOT / "selfpab_jax", "selfpab_jax.convert": ROOT / "convert"}
LAYERS = (
    # a module imports only what is in its own row or above
    ("selfpab_jax.errors", "selfpab_jax.io", "selfpab_jax.progress", "selfpab_jax.prefetch", "selfpab_jax.config"),
    ("selfpab_jax.signal",),
    ("selfpab_jax.model", "selfpab_jax.distributed"),
    ("selfpab_jax.model_dir",),
    ("selfpab_jax.data",),
    ("selfpab_jax.train",),
    ("selfpab_jax.features", "selfpab_jax.convert"),
    ("selfpab_jax.probe",),
    ("selfpab_jax.planning", "selfpab_jax.scaling"),
    ("selfpab_jax.cli",),
)


def modules() -> dict[str, Path]:
    """Every module of the package and its file; packages by their own name."""
    found = {}
    for package, folder in FOLDERS.items():
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            found[".".join([package, *(part for part in parts if part != "__init__")])] = path
    return found


def imports(files: dict[str, Path]) -> dict[str, set[str]]:
    """The modules of the package that each one imports."""
    found: dict[str, set[str]] = {}
    for module, path in files.items():
        found[module] = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module:
                names = {f"{node.module}.{alias.name}" for alias in node.names}
                found[module] |= {name for name in names if name in files} or {node.module} & files.keys()
            elif isinstance(node, ast.Import):
                found[module] |= {alias.name for alias in node.names} & files.keys()
        found[module].discard(module)
    return found


def closure(module: str, graph: dict[str, set[str]]) -> set[str]:
    """The module and everything that it imports, directly or not."""
    seen, todo = set(), [module]
    while todo:
        each = todo.pop()
        if each not in seen:
            seen.add(each)
            todo += graph[each]
    return seen


def circles(graph: dict[str, set[str]]) -> list[str]:
    """Modules that import themselves through others."""
    return sorted(module for module in graph if any(module in closure(other, graph) for other in graph[module]))


def arrows_up(graph: dict[str, set[str]]) -> list[str]:
    """Imports from a higher layer."""
    return sorted(f"{a} -> {b}" for a in graph for b in graph[a] if 0 <= _layer(a) < _layer(b))


def _layer(module: str) -> int:
    for number, prefixes in enumerate(LAYERS):
        if any(module == prefix or module.startswith(prefix + ".") for prefix in prefixes):
            return number
    return -1  # selfpab_jax itself, which re-exports the public functions


def class_names_used_twice(files: dict[str, Path]) -> dict[str, list[str]]:
    """Names of public classes that several modules define."""
    places = defaultdict(list)
    for module, path in files.items():
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(module)
    return {name: where for name, where in places.items() if len(where) > 1}


def lines_of(path: Path) -> int:
    """Lines of a file."""
    return len(path.read_text(encoding="utf-8").splitlines())


def files_per_folder(paths: Iterable[Path]) -> dict[Path, int]:
    """Python files side by side in each folder, without `__init__.py`."""
    counts: dict[Path, int] = defaultdict(int)
    for path in paths:
        if path.name != "__init__.py":
            counts[path.parent] += 1
    return dict(counts)


def main() -> None:
    """Print the figures."""
    files = modules()
    graph = imports(files)
    plain = {module: path for module, path in files.items() if path.name != "__init__.py"}
    lengths = {module: lines_of(path) for module, path in plain.items()}
    importers = defaultdict(set)
    for module, targets in graph.items():
        for target in targets:
            importers[target].add(module)
    single = [module for module in plain if len(importers[module]) == 1]
    total = sum(lines_of(path) for path in files.values())
    print(f"files {len(plain)} (and {len(files) - len(plain)} __init__.py), lines {total:,}")
    print(f"lines per file: median {median(lengths.values()):g}, longest {max(lengths.values())}")
    print(f"modules with one importer: {len(single)}")
    for module in ("selfpab_jax.train.step", "selfpab_jax.train.loop"):
        reached = [each for each in closure(module, graph) if each in plain]
        print(f"import closure of {module}: {len(reached)} files, {sum(lengths[each] for each in reached):,} lines")
    for folder, count in sorted(files_per_folder(plain.values()).items(), key=lambda item: -item[1])[:5]:
        print(f"{count:>3} files in {folder.relative_to(ROOT)}")
    print(f"circles: {circles(graph) or 'none'}")
    print(f"arrows up: {arrows_up(graph) or 'none'}")
    print(f"class names used twice: {class_names_used_twice(files) or 'none'}")
    print(f"longer than 400 lines: {[m for m, n in lengths.items() if n > 400] or 'none'}")


if __name__ == "__main__":
    main()
