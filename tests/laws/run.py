"""Breaks each law of the design on purpose, in a copy of the tree, and expects its tests to go red.

    python tests/laws/run.py [LAW ...]

A law is listed in laws.yaml with a patch against automc/ and the tests that hold it. Here it fails (exit 1) where a
patch does not apply any more, where a test is red without the patch, or where one stays green with it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import yaml

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
LIMIT_S = 300


@dataclass(frozen=True)
class Break:
    """One way to break a law: the patch that does it and the tests that must notice, each of them."""

    law: int
    says: str
    patch: Path
    tests: tuple[str, ...]


def read_breaks() -> list[Break]:
    laws = yaml.safe_load((HERE / "laws.yaml").read_text())
    return [
        Break(law["law"], law["says"], HERE / item["patch"], tuple(item["tests"]))
        for law in laws
        for item in law["breaks"]
    ]


def copy_tree(target: Path) -> None:
    """Everything git knows or would add, as it stands now."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    for name in names:
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            (target / name).write_bytes((ROOT / name).read_bytes())


def outcomes(tree: Path, tests: tuple[str, ...]) -> dict[str, str]:
    """Each named test to "passed", "failed" or what else became of it, as run on the package in `tree`."""
    report = tree / "outcome.xml"
    environment = {**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    where = subprocess.run(
        [sys.executable, "-c", "import automc; print(automc.__file__)"],
        cwd=tree, env=environment, capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    if where != str(tree / "automc" / "__init__.py"):
        raise SystemExit(f"the tests would run on {where}, not on the copy in {tree}")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", *tests]
    done = subprocess.run(
        command, cwd=tree, env=environment, capture_output=True, text=True, timeout=LIMIT_S, check=False
    )
    if done.returncode not in (0, 1):
        raise SystemExit(f"pytest could not run {' '.join(tests)}:\n{done.stdout}{done.stderr}")
    found = dict.fromkeys(tests, "did not run")
    for case in ElementTree.parse(report).iter("testcase"):
        module, name = str(case.get("classname")).replace(".", "/") + ".py", str(case.get("name"))
        test = f"{module}::{name.split('[')[0]}"
        kinds = {child.tag for child in case} & {"failure", "error", "skipped"}
        outcome = {"failure": "failed", "error": "error", "skipped": "skipped"}.get(next(iter(kinds), ""), "passed")
        if test in found and found[test] != "failed":  # of a parametrised test, one red case is red
            found[test] = outcome
    return found


def check(item: Break) -> list[str]:
    """What is wrong with this break; nothing where the law is held."""
    with tempfile.TemporaryDirectory(prefix="automc-law-") as folder:
        tree = Path(folder)
        copy_tree(tree)
        applied = subprocess.run(
            ["git", "apply", "--verbose", str(item.patch)], cwd=tree, capture_output=True, text=True, check=False
        )
        if applied.returncode != 0:
            return [f"{item.patch.name} does not apply any more:\n{applied.stderr}"]
        found = outcomes(tree, item.tests)
        return [f"{item.patch.name}: {test} {state}, not failed" for test, state in found.items() if state != "failed"]


def main(wanted: list[str]) -> int:
    breaks = [item for item in read_breaks() if not wanted or str(item.law) in wanted]
    with tempfile.TemporaryDirectory(prefix="automc-law-") as folder:
        copy_tree(Path(folder))
        every = tuple(sorted({test for item in breaks for test in item.tests}))
        red = {test: state for test, state in outcomes(Path(folder), every).items() if state != "passed"}
    problems = [f"{test} {state} without any patch" for test, state in red.items()]
    start = time.monotonic()
    with ThreadPoolExecutor(max_workers=2) as pool:
        for item, wrong in zip(breaks, pool.map(check, breaks), strict=True):
            verdict = "its tests stay green" if wrong else "broken by the patch, red in the tests"
            print(f"law {item.law} ({item.says}), {item.patch.name}: {verdict}", flush=True)
            problems += wrong
    print(f"{len(breaks)} breaks of {len({item.law for item in breaks})} laws in {time.monotonic() - start:.0f} s")
    for problem in problems:
        print(f"PROBLEM: {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
