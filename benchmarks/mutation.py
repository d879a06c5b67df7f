"""Mutation testing of the safety core: change one thing in its code, and see whether a test fails.

    python benchmarks/mutation.py [--modules guard supervisor] [--jobs 1]

Operators: a comparison inverted or moved by its boundary, `and` for `or`, `not` dropped, the sign and the operation of
arithmetic, numbers one up, True for False, min for max, any for all, and every assignment, call and return left out.
Each mutant runs in a fork that has imported everything else: first the tests by hand, then, if it is still alive, the
fuzz. A mutant that no test kills must be explained in EXPLAINED.
"""

from __future__ import annotations

import ast
import contextlib
import copy
import importlib
import json
import os
import signal
import sys
import time
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import tyro

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "benchmarks" / "results" / "mutation.json"
MODULES = ("guard", "guarded", "motion", "limits", "recovery", "supervisor")
TESTS = ROOT / "tests" / "deploy"
QUICK = {
    "supervisor": ["test_supervisor.py"],
    "recovery": ["test_recovery.py", "test_motion.py"],
    "guarded": ["test_guarded.py"],
}
QUICK_ELSE = ["test_motion.py", *(f"test_guard_{what}.py" for what in ("commands", "faults", "recovery", "stops"))]
SLOW = ["test_guard_fuzz.py"]
RANDOM = "not ever_emitted and not stay_within"  # properties over random input: not among the quick tests
TIMEOUT = 300  # s
SWAP: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.Pow: ast.Mult,
}
CALLS = {"min": "max", "max": "min", "any": "all", "all": "any"}

# (module, statement, change) -> why nothing can be seen of it
EXPLAINED: dict[tuple[str, str, str], str] = {
    (
        "guard",
        "self._heartbeat = self._since = -math.inf",
        "-math.inf -> math.inf",
    ): "no state that asks for them without one",
    ("guard", "self._anew = True", "True -> False"): "without any measurement nothing is written anyway",
    (
        "guard",
        "self._written = self._limits.apply(here, here, 0.0, self._motion.position, self._motion.velocity)",
        "0.0 -> 1.0",
    ): "there is no way from `here` to `here` that could take time",
    ("guard", "self._unanswered = 0", "0 -> 1"): "set to zero when ACTIVE begins, and read there only",
    (
        "guard",
        "if number < self._answered or now - measured_at > self.spec.safety.max_command_age_ms / 1000:",
        "number < self._answered -> number <= self._answered",
    ): "an equal number was refused as a duplicate just before",
    ("guard", "SETTLE_SECONDS = 0.5", "0.5 -> 1.5"): "a choice; the tests hold the guard to the constant",
    ("guard", "GONE_SECONDS = 1.0", "1.0 -> 2.0"): "a choice; the tests hold the guard to the constant",
    ("guard", "self._number = 0", "0 -> 1"): "numbers are compared with each other and with zero only",
    ("guard", "self._number += 1", "1 -> 2"): "numbers are compared with each other and with zero only",
    (
        "guard",
        "number, measured_at = self._measured.get(stamp, (0, -math.inf))",
        "-math.inf -> math.inf",
    ): "a stamp of number zero is refused before its time is looked at",
    ("motion", "self.velocity: Sequence[float] = [0.0] * len(spec.joints)", "0.0 -> 1.0"): "no torque, thus no reader, "
    "before the first measurement",
    ("motion", "self._resting, self.moved_at = (0, 0.0)", "0.0 -> 1.0"): "set by the first measurement",
    ("motion", "if a * b <= 0:", "a * b <= 0 -> a * b < 0"): "of two speeds one of which is zero, zero is the smaller",
    ("motion", "return a if abs(a) < abs(b) else b", "abs(a) < abs(b) -> abs(a) <= abs(b)"): "equal ones are the same",
    ("limits", "return min(1.0, floor + (1.0 - floor) * left)", "1.0 -> 2.0"): "the joint's own bounds come last",
    (
        "limits",
        "return low if value < low else high if value > high else value",
        "value < low -> value <= low",
    ): "at the bound the bound and the value are the same",
    (
        "limits",
        "return low if value < low else high if value > high else value",
        "value > high -> value >= high",
    ): "at the bound the bound and the value are the same",
    ("recovery", "Pose = tuple[float, ...]", "Pose = tuple[float, ...] -> pass"): "read by the type checker only",
    (
        "recovery",
        "room = self._upper - self._start if self._speed > 0 else self._start - self._lower",
        "self._speed > 0 -> self._speed >= 0",
    ): "the room of a joint at rest is not used",
    ("recovery", "if now < self._hold.ends:", "now < self._hold.ends -> now <= self._hold.ends"): "the stop ends where "
    "the move begins",
    ("supervisor", "ARM_TIMEOUT = 20.0", "20.0 -> 21.0"): "a choice; the tests hold the supervisor to the constant",
    (
        "supervisor",
        "RECOVERY_TIMEOUT = 30.0",
        "30.0 -> 31.0",
    ): "a choice; the tests hold the supervisor to the constant",
    ("supervisor", "self._excused = False", "False -> True"): "read by the first tick, when nothing can be lost yet",
    ("supervisor", "self._rests = False", "False -> True"): "set before it is read, by entering ESTOP",
    ("supervisor", "self._admissible = 0", "self._admissible = 0 -> pass"): "set before it is read, by entering ARMED",
    ("supervisor", "self._admissible = 0", "0 -> 1"): "set before it is read, by entering ARMED",
}


class Mutant(NamedTuple):
    """One change: where, what it makes of the code, and the whole module after it.

    Attributes:
        statement: The first line of the statement it is in.
    """

    module: str
    line: int
    statement: str
    change: str
    source: str


def mutants(module: str) -> Iterator[Mutant]:
    """Every mutant of `deploy/<module>.py`."""
    tree = ast.parse((ROOT / "deploy" / f"{module}.py").read_text())
    for node, parent, field, statement in list(_walk(tree, "")):
        for undo, new in _changes(node):
            before = ast.unparse(node)
            holder = getattr(parent, field)
            at = next((k for k, each in enumerate(holder) if each is node), None) if isinstance(holder, list) else None
            if at is None:
                setattr(parent, field, new)
            else:
                holder[at] = new
            yield Mutant(module, node.lineno, statement, f"{before} -> {ast.unparse(new)}", ast.unparse(tree))
            if at is None:
                setattr(parent, field, undo)
            else:
                holder[at] = undo


def explanation(mutant: Mutant) -> str:
    """Why the tests cannot tell this mutant from the code; empty if nobody has said."""
    if mutant.change == "True -> False" and "strict=True" in mutant.statement:
        return "the two are of equal length whatever comes in; `strict` would only say so sooner if they were not"
    if mutant.change == "return None -> pass" and mutant.statement == "return None":
        return "the end of a function returns None"
    return EXPLAINED.get((mutant.module, mutant.statement, mutant.change), "")


def _walk(tree: ast.AST, statement: str) -> Iterator[tuple[Any, Any, str, str]]:
    """Nodes of the code that runs with their parents and statements: no docstrings, annotations, imports, asserts."""
    for field, value in ast.iter_fields(tree):
        if field in ("annotation", "returns", "bases", "decorator_list", "type_comment"):
            continue
        for child in value if isinstance(value, list) else [value]:
            skipped = (
                ast.Import,
                ast.ImportFrom,
                ast.Assert,
                ast.expr_context,
                ast.operator,
                ast.cmpop,
                ast.boolop,
                ast.unaryop,
            )
            if not isinstance(child, ast.AST) or isinstance(child, skipped) or _is_docstring(child):
                continue
            inside = ast.unparse(child).split("\n")[0] if isinstance(child, ast.stmt) else statement
            if hasattr(child, "lineno"):
                yield child, tree, field, inside
            yield from _walk(child, inside)


def _is_docstring(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _changes(node: Any) -> Iterator[tuple[Any, Any]]:
    """(the node, what to put in its place)."""
    if isinstance(node, ast.Compare):
        for k, op in enumerate(node.ops):
            for other in SWAP[type(op)]:
                new = copy.deepcopy(node)
                new.ops[k] = other()
                yield node, new
    elif isinstance(node, ast.BoolOp):
        new = copy.deepcopy(node)
        new.op = ast.And() if isinstance(node.op, ast.Or) else ast.Or()
        yield node, new
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.Not, ast.USub)):
        yield node, copy.deepcopy(node.operand)
    elif isinstance(node, ast.BinOp) and type(node.op) in ARITHMETIC and not _is_type(node):
        new = copy.deepcopy(node)
        new.op = ARITHMETIC[type(node.op)]()
        yield node, new
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield node, ast.Constant(not node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
        yield node, ast.Constant(node.value + 1)
    elif isinstance(node, ast.Name) and node.id in CALLS and isinstance(node.ctx, ast.Load):
        yield node, ast.Name(CALLS[node.id], ast.Load())
    elif (
        isinstance(node, (ast.Assign, ast.AugAssign, ast.Expr, ast.Return)) and getattr(node, "value", None) is not None
    ):
        yield node, ast.copy_location(ast.Pass(), node)


def _is_type(node: ast.BinOp) -> bool:
    return isinstance(node.op, ast.BitOr)


def survives(mutant: Mutant) -> bool:
    """Whether every test passes with it; of one that is explained, the quick tests."""
    if not _passes(mutant, QUICK.get(mutant.module, QUICK_ELSE), RANDOM):
        return False
    return bool(explanation(mutant)) or _passes(mutant, SLOW, "not safety_page")


def _passes(mutant: Mutant, tests: list[str], chosen: str) -> bool:
    child = os.fork()
    if child == 0:
        os._exit(_run(mutant, tests, chosen))
    deadline = time.monotonic() + TIMEOUT
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status) == 0
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)  # an endless loop is noticed, too
    os.waitpid(child, 0)
    return False


def _run(mutant: Mutant, tests: list[str], chosen: str) -> int:
    import pytest

    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    try:
        _load(mutant)
        options = ["-x", "-q", "-p", "no:cacheprovider", "-k", chosen]
        return int(pytest.main([*options, *(str(TESTS / name) for name in tests)]))
    except BaseException:
        return 1


def _load(mutant: Mutant) -> None:
    name = f"landbridge.deploy.{mutant.module}"
    module = types.ModuleType(name)
    module.__file__ = str(ROOT / "deploy" / f"{mutant.module}.py")
    sys.modules[name] = module
    setattr(importlib.import_module("landbridge.deploy"), mutant.module, module)
    exec(compile(mutant.source, module.__file__, "exec"), module.__dict__)


def main(modules: tuple[str, ...] = MODULES, jobs: int = 1) -> None:
    """Run every mutant, print the survivors, and put each module's figures into `benchmarks/results/mutation.json`.

    Args:
        modules: Of deploy/, by name.
        jobs: Mutants at a time.
    """
    for name in ("hypothesis", "numpy", "pytest", "landbridge.robot", "landbridge.episode"):
        importlib.import_module(name)
    from concurrent.futures import ThreadPoolExecutor

    from landbridge.provenance import commit, now

    tested = commit()  # before the record of a module makes the checkout differ from it
    for module in modules:
        tree = ast.parse((ROOT / "deploy" / f"{module}.py").read_text())
        unchanged = Mutant(module, 0, "", "", ast.unparse(tree))
        assert _passes(unchanged, QUICK.get(module, QUICK_ELSE), RANDOM), f"the tests fail without a mutant in {module}"
        survivors = []
        found = list(mutants(module))
        with ThreadPoolExecutor(jobs) as pool:
            alive = [m for m, lives in zip(found, pool.map(survives, found), strict=True) if lives]
        for mutant in alive:
            why = explanation(mutant)
            print(f"{module}.py:{mutant.line}: {mutant.change}\n    {why or 'NOT EXPLAINED'}", flush=True)
            survivors.append({"line": mutant.line, "change": mutant.change, "why": why})
        figures = {"made": now(), "commit": tested, "mutants": len(found), "killed": len(found) - len(alive)}
        print(module, figures, flush=True)
        results = json.loads(RESULT.read_text()) if RESULT.exists() else {}
        results[module] = figures | {"survivors": survivors}
        RESULT.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        tyro.cli(main)
