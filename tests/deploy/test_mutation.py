"""The list of mutants that no test can tell from the code belongs to the code as it is."""

from __future__ import annotations

import mutation
import pytest


@pytest.mark.parametrize("module", mutation.MODULES)
def test_every_explained_mutant_exists(module: str) -> None:
    found = {(m.module, m.statement, m.change) for m in mutation.mutants(module)}
    assert {key for key in mutation.EXPLAINED if key[0] == module} <= found


def test_a_mutant_differs_from_the_code_and_compiles() -> None:
    for mutant in mutation.mutants("limits"):
        before, after = mutant.change.split(" -> ", 1)
        assert before != after
        compile(mutant.source, "limits.py", "exec")
