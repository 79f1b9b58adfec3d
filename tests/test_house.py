"""The house rules of the design, held against the code: who may import whom, and what is written down."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from itertools import chain
from pathlib import Path

import pytest

from service.settings import PREFIX, Settings

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "service").rglob("*.py"))

# Section 2 of the design. A module belongs to the longest name here that its own name starts with;
# within its part it may import anything, outside only what stands beside it, or what is below that.
ARROWS: dict[str, set[str]] = {
    "errors": set(),
    "console": set(),
    "arguments": set(),
    "telemetry": set(),
    "inspection": set(),
    "inspection.listing": {"inspection", "console"},
    "store": {"errors"},
    "network": {"store", "errors"},
    "graph": {"network", "errors"},
    "plan": {"graph", "plan.cores", "errors"},
    "plan.cores": {"plan.cgroup"},
    "plan.cgroup": set(),
    "batching": {"errors"},
    "settings": {"batching.policy", "inspection.thresholds", "errors"},
    "protocol": {"errors"},
    "inputs": {"protocol", "store.manifest", "errors"},
    # What the engine and the workers share, from the ground up
    "engine.shared_memory": set(),
    "engine.arena": {"engine.shared_memory"},
    "engine.board": {"engine.shared_memory", "batching.admission"},
    "engine.control": set(),
    "engine.doorbell": {"batching.job", "errors"},
    "engine.card": {"inspection", "store.manifest", "batching.job", "errors"},
    "engine.change": {"errors"},
    "keyring": {"settings", "errors"},
    "configuration": {"console", "settings"},
    "engine.log_level": {"engine.control", "telemetry", "errors"},
    # A worker's side
    "engine.run": {"engine.arena", "engine.doorbell"},
    "engine.line": {"engine.arena", "engine.doorbell", "engine.run", "batching.job", "errors"},
    "engine.errands": {"engine.change", "engine.control", "errors"},
    "engine.editions": {"engine.card", "engine.control", "batching.admission", "errors"},
    "engine.backlog": {
        *("engine.board", "engine.doorbell", "engine.editions", "engine.run"),
        *("batching.admission", "batching.policy", "errors"),
    },
    "engine.client": {
        *("engine.arena", "engine.backlog", "engine.board", "engine.card", "engine.control"),
        *("engine.editions", "engine.errands", "engine.line", "engine.log_level", "engine.run"),
        *("batching.admission", "batching.job", "settings", "errors"),
    },
    # The engine's side
    "engine.link": {"engine.arena", "engine.doorbell"},
    "engine.linked_job": {"engine.arena", "engine.card", "engine.doorbell", "engine.link", "batching.job"},
    "engine.switchboard": {
        *("engine.arena", "engine.card", "engine.control", "engine.doorbell", "engine.link"),
        *("engine.linked_job", "batching.queue", "telemetry"),
    },
    "engine.stopwatch": set(),
    "engine.allocator": set(),
    "engine.memory": {"plan.cgroup", "store.content", "store.model_store", "errors"},
    "engine.unfolded": {"engine.stopwatch", "graph", "network", "store", "errors"},
    "engine.golden": {"engine.stopwatch", "graph", "store", "errors"},
    "engine.layers": {
        *(
            "engine.memory",
            "engine.stopwatch",
            "engine.unfolded",
            "plan.plan",
            "graph",
            "network",
            "store.model_store",
        ),
        *("inspection", "errors"),
    },
    "engine.watching": {"plan", "graph", "network", "store", "inspection"},
    "engine.budget": set(),
    "engine.draw": {"engine.budget", "engine.linked_job", "batching.job"},
    "engine.observer": {"engine.card", "engine.draw", "engine.watching", "inspection"},
    "engine.sampler": {
        *("engine.budget", "engine.card", "engine.linked_job", "engine.observer", "engine.watching"),
        *("inspection", "batching.job", "telemetry"),
    },
    "engine.examiner": {
        *("engine.budget", "engine.card", "engine.doorbell", "engine.linked_job", "engine.watching"),
        *("plan.observation", "batching.job", "batching.queue", "telemetry"),
    },
    "engine.folded": {
        *("engine.layers", "engine.stopwatch", "engine.unfolded", "engine.watching", "plan.plan"),
        *("graph", "network", "store.model_store"),
    },
    "engine.loading": {
        *(
            "engine.folded",
            "engine.golden",
            "engine.watching",
            "engine.unfolded",
            "engine.stopwatch",
            "engine.allocator",
            "engine.memory",
            "engine.card",
        ),
        *("plan", "graph", "network", "store", "inspection", "errors"),
    },
    # The user's own images
    "diagnosis": {"inspection", "inputs", "store.manifest"},
    "evaluation": {
        *("engine.golden", "engine.loading", "engine.stopwatch", "engine.unfolded", "plan", "graph"),
        *("inputs", "store", "settings", "arguments", "console", "errors"),
    },
    "calibration": {
        *("engine.stopwatch", "engine.unfolded", "engine.watching", "evaluation.batches"),
        *("evaluation.pictures", "plan", "graph", "network", "inspection", "store", "settings"),
        *("arguments", "console", "errors"),
    },
    "doctor": {
        *("calibration.gallery", "calibration.observed", "diagnosis", "evaluation.batches"),
        *("evaluation.pictures", "inputs", "plan.device", "store", "settings", "arguments", "console"),
        "errors",
    },
    # The norms, in a terminal
    "layers": {
        *("inspection", "engine.layers", "engine.loading", "plan.device", "store.model_store"),
        *("settings", "arguments", "console", "errors"),
    },
    # The shipped model
    "training": {"engine.unfolded", "network", "store", "settings", "console", "errors"},
    "engine.selection": {"store.model_store", "settings", "errors"},
    "engine.repertoire": {"engine.card", "engine.loading", "plan.plan", "store.model_store"},
    "engine.acceptance": {
        *("engine.card", "engine.change", "engine.repertoire", "engine.selection", "inspection", "store"),
        *("engine.allocator", "errors"),
    },
    "engine.undertaking": {
        *("engine.acceptance", "engine.change", "engine.loading", "engine.selection", "inspection"),
        *("store.model_store", "errors"),
    },
    "engine.preparation": {
        *("engine.acceptance", "engine.change", "engine.loading", "engine.repertoire"),
        *("engine.selection", "engine.stalled", "engine.undertaking", "store.model_store", "errors"),
    },
    "engine.turnover": {
        *("engine.acceptance", "engine.preparation", "engine.undertaking"),
        *("engine.card", "engine.change", "engine.control", "engine.linked_job", "engine.loading"),
        *("engine.repertoire", "engine.sampler", "batching.queue", "plan.plan"),
        *("engine.examiner", "store.model_store"),
    },
    "engine.runner": {
        *("engine.board", "engine.doorbell", "engine.linked_job", "engine.repertoire", "engine.sampler"),
        *("engine.switchboard", "batching", "telemetry"),
    },
    "engine.stalled": {
        *("engine.allocator", "engine.child", "engine.selection", "store.model_store", "errors"),
    },
    "engine.engine": {
        *("engine.loading", "engine.board", "engine.control", "engine.doorbell", "engine.linked_job"),
        *(
            "engine.acceptance",
            "engine.preparation",
            "engine.repertoire",
            "engine.runner",
            "engine.selection",
            "engine.stalled",
            "engine.switchboard",
            "engine.turnover",
            "plan.device",
        ),
        *("engine.examiner", "engine.sampler", "engine.watching", "inspection"),
        *("batching", "store.model_store", "settings", "telemetry", "errors"),
    },
    "importing": {
        *("console", "engine.card", "engine.loading", "engine.unfolded", "engine.stopwatch", "plan.device"),
        *("graph", "network", "store", "settings", "errors"),
    },
    # The supervisor's side, and what it starts
    "engine.backoff": set(),
    "engine.placement": {"plan.cores", "settings"},
    "engine.child": {"engine.control", "keyring", "settings"},
    "engine.supervisor": {
        *("engine.backoff", "engine.board", "engine.card", "engine.child", "engine.control"),
        *("engine.placement", "engine.poller", "engine.roster", "engine.selection", "engine.watch"),
        *("store.model_store", "keyring", "settings", "telemetry"),
    },
    "engine.poller": {"engine.change", "engine.selection", "errors"},
    "engine.changes": {"engine.change", "engine.child", "engine.control", "telemetry", "errors"},
    "engine.roster": {
        *("engine.arena", "engine.board", "engine.card", "engine.changes", "engine.child", "engine.control"),
        "telemetry",
    },
    "engine.watch": {"engine.board"},
    "engine.__main__": {
        *("engine.allocator", "engine.board", "engine.child", "engine.engine", "engine.selection"),
        *("inspection", "store.model_store", "telemetry", "errors"),
    },
    "web": {
        *(
            "engine.client",
            "engine.card",
            "diagnosis",
            "inspection",
            "inputs",
            "protocol",
            "batching.job",
            "store.manifest",
            "store.names",
        ),
        *("settings", "telemetry", "errors"),
    },
    "web.gate": {"web.access", "web.hosts", "web.problems", "keyring", "telemetry", "errors"},
    "web.routes_repository": {
        *("web.context", "web.json_body", "web.schemas_v2", "engine.change", "store.model_store", "errors"),
    },
    "web.routes_baseline": {"web", "engine.change", "inspection"},
    "web.application": {
        *("web", "web.gate", "web.routes_baseline", "web.routes_repository", "keyring", "telemetry"),
    },
    "web.worker": {
        *("web", "engine.board", "engine.child", "engine.client", "engine.control", "keyring"),
        *("inspection", "settings", "telemetry"),
    },
    "web.__main__": {"web.worker", "engine.allocator", "engine.board", "engine.child", "telemetry"},
    "app": {
        *("engine.card", "engine.placement", "engine.supervisor", "keyring", "settings", "telemetry"),
        "errors",
    },
    "folding": {
        *("arguments", "console", "engine.card", "engine.loading", "engine.unfolded", "graph", "network"),
        *("plan", "store", "settings", "errors"),
    },
    "greeting": {"console", "engine.card", "settings"},
    "cli": {
        *("app", "importing", "evaluation.command", "calibration.command", "doctor.command"),
        *("folding.command", "layers.command", "training.command", "arguments", "configuration", "console"),
        *("greeting", "plan.openmp", "store", "settings", "errors"),
    },
    "__main__": {"cli"},
}
MAY_IMPORT_TORCH = (
    *("plan", "graph", "network", "store.weights", "store.payloads", "engine.engine", "engine.folded"),
    *("engine.golden", "engine.layers", "engine.loading", "engine.runner", "engine.turnover"),
    *("engine.unfolded", "engine.watching"),
    *("importing", "evaluation", "calibration", "doctor", "folding", "training"),
)
WITHOUT_TORCH = (
    *(
        "web",
        "inputs",
        "protocol",
        "batching",
        "inspection",
        "diagnosis",
        "telemetry",
        "app",
        "cli",
        "settings",
        "errors",
    ),
    *("keyring", "engine.change", "engine.changes", "engine.errands", "engine.poller", "engine.roster"),
    *("engine.acceptance", "engine.preparation", "engine.repertoire", "engine.selection"),
    "engine.undertaking",
    *("importing.command", "importing.arguments", "plan.cgroup", "plan.cores"),
    *("evaluation.command", "evaluation.pictures", "evaluation.batches", "console"),
    *("calibration.command", "calibration.gallery", "doctor.command", "layers.command", "arguments"),
    *("folding.command", "greeting", "training.command"),
    *("store.manifest", "store.model_store", "store.program", "store.golden"),
    *("engine.supervisor", "engine.child", "engine.placement", "engine.backoff", "engine.control"),
    *("engine.arena", "engine.board", "engine.card", "engine.client", "engine.doorbell", "engine.line"),
    *("engine.backlog", "engine.draw", "engine.editions"),
    *("engine.link", "engine.linked_job", "engine.run", "engine.switchboard"),
    *("engine.budget", "engine.examiner", "engine.observer", "engine.sampler", "store.baseline"),
    "engine.__main__",  # until it begins: what loads torch comes behind its order
)
BANNED_WORDS = {"manager", "handler", "helper", "helpers", "utils", "util", "common", "base", "misc"}
BANNED_WORDS |= {"data", "info", "process"}


def module_name(path: Path) -> str:
    """`engine.client` for service/engine/client.py; empty for the package itself."""
    parts = path.relative_to(ROOT / "service").with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in FILES}


def imports(tree: ast.AST) -> set[str]:
    """The full names of all modules that are imported anywhere below `tree`."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            source = node.module or ""
            for alias in node.names:
                deeper = f"{source}.{alias.name}"
                found.add(deeper if deeper.removeprefix("service.") in MODULES else source)
    return found


def ours(tree: ast.AST) -> set[str]:
    return {name.removeprefix("service.") for name in imports(tree) if name.startswith("service.")}


def at_import(tree: ast.Module) -> ast.Module:
    """The module without its functions' bodies and its TYPE_CHECKING block."""

    class Pruned(ast.NodeTransformer):
        def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
            return None

        def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
            return None

        def visit_If(self, node: ast.If) -> ast.AST | None:
            if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
                return None
            return self.generic_visit(node)

    pruned = Pruned().visit(tree)
    assert isinstance(pruned, ast.Module)
    return pruned


def parsed(name: str) -> ast.Module:
    return ast.parse(MODULES[name].read_text(encoding="utf-8"))


def within(name: str, part: str) -> bool:
    return name == part or name.startswith(f"{part}.")


def part_of(name: str) -> str:
    return max((part for part in ARROWS if within(name, part)), key=len)


CODE = [name for name in MODULES if name and parsed(name).body[1:]]


# Imports


@pytest.mark.parametrize("name", CODE)
def test_arrows_go_one_way(name: str) -> None:
    part = part_of(name)
    wrong = {
        other
        for other in ours(parsed(name))
        if not within(other, part) and not any(within(other, allowed) for allowed in ARROWS[part])
    }
    assert wrong == set()


def test_the_arrows_themselves_have_no_cycle() -> None:
    below: dict[str, set[str]] = {part: {part_of(other) for other in ARROWS[part]} for part in ARROWS}
    while below:
        ends = {part for part, others in below.items() if not others}
        assert ends, f"a cycle among {sorted(below)}"
        below = {part: others - ends for part, others in below.items() if part not in ends}


def test_no_module_imports_itself_by_way_of_others() -> None:
    left = {name: {other for other in ours(parsed(name)) if other != name} for name in CODE}
    left = {name: {other for other in others if other in left} for name, others in left.items()}
    while left:
        ends = {name for name, others in left.items() if not others}
        assert ends, f"a cycle among {sorted(left)}"
        left = {name: others - ends for name, others in left.items() if name not in ends}


def may_import_torch(name: str) -> bool:
    apart = {"plan.cgroup", "plan.cores", "importing.command", "importing.arguments"}
    return name not in apart and any(within(name, part) for part in MAY_IMPORT_TORCH)


@pytest.mark.parametrize("name", [n for n in CODE if not may_import_torch(n)])
def test_torch_is_imported_only_where_it_belongs(name: str) -> None:
    tree = parsed(name)
    # A command that computes imports torch when it is given, so that the others start at once.
    looked_at = at_import(tree) if name in {"app", "cli", "importing.command"} else tree
    needed = imports(looked_at)
    assert not [other for other in needed if within(other, "torch")]
    assert not [other for other in needed if within(other, "safetensors.torch")]


@pytest.mark.parametrize("name", [n for n in CODE if not within(n, "plan") and n not in {"engine.engine"}])
def test_only_the_plan_and_the_engine_touch_a_device(name: str) -> None:
    touching = {"cuda", "backends", "accelerator", "mps", "xpu"}
    wrong = [
        ast.unparse(node)
        for node in ast.walk(parsed(name))
        if (isinstance(node, ast.Attribute) and node.attr in touching)
        or (isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.device")
    ]
    assert wrong == []


def test_all_but_the_engine_starts_without_torch() -> None:
    names = [name for name in MODULES if any(within(name, part) for part in WITHOUT_TORCH)]
    assert all(any(within(name, part) for name in names) for part in WITHOUT_TORCH)
    source = "\n".join(
        [
            "import sys",
            *(f"import service.{name}" for name in names),
            "heavy = {'torch', 'scipy', 'sklearn', 'safetensors.torch'}",
            "print(sorted(heavy & set(sys.modules)))",
        ]
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", source], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")


# Names and papers


def test_no_file_has_a_name_that_says_nothing() -> None:
    words = {
        path: set(path.stem.lower().strip("_").split("_"))
        for path in [*FILES, *(ROOT / "service").iterdir(), *(ROOT / "service").glob("*/")]
    }
    assert [str(path) for path, said in words.items() if said & BANNED_WORDS] == []


@pytest.mark.parametrize("name", MODULES)
def test_every_module_says_what_it_holds(name: str) -> None:
    tree = parsed(name)
    assert ast.get_docstring(tree) or not tree.body


def settings_page() -> dict[str, str]:
    text = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    sections = text.split("\n## ")[1:]
    return {section.partition("\n")[0]: section.partition("\n")[2] for section in sections}


def test_every_setting_has_a_heading_in_the_order_of_the_code() -> None:
    assert list(settings_page()) == list(Settings.model_fields)


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_is_documented_with_its_names_and_its_default(name: str) -> None:
    section = settings_page()[name]
    first, meaning = section.strip().split("\n\n", maxsplit=1)
    default = str(Settings.model_fields[name].default)
    assert f"`{PREFIX}{name.upper()}`" in first
    # All may see a command's arguments.
    assert (f"`--{name.replace('_', '-')}`" in first) == (name != "keys")
    assert (f"Default: `{default}`." if default else "Default: empty") in first
    assert len(meaning.split()) > 3


def dependencies() -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *chain(*project["optional-dependencies"].values())]
    names = {requirement.split(">=")[0].split("[")[0] for requirement in wanted}
    return names - {project["name"]}


def vendored() -> set[str]:
    """What lies in folders of others' files, each with its licence and its origin."""
    folders = [*(ROOT / "service").rglob("vendor/*/"), *(ROOT / "tests").rglob("vendor/*/")]
    assert all((folder / name).is_file() for folder in folders for name in ("LICENSE", "VENDORED.txt"))
    return {folder.name for folder in folders}


def test_every_dependency_has_a_row_and_every_row_a_dependency() -> None:
    page = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if "|" in line
    ]
    named = {row[0] for row in rows[2:] if not row[0].startswith("**")}
    assert named == dependencies() | vendored()
    assert [row[0] for row in rows[2:] if row[0] in named and not all(row[1:])] == []
