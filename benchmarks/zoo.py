"""The zoo: any user's model. `python benchmarks/zoo.py FOLDER [NAMES] [MINUTES] [OUT_STEM]`.

Networks that nobody tuned automc for (`zoo_networks`), with random weights and random data, each in a process of its
own with a limit on time and memory, go through what a user does: `automc doctor --calibrate`, a search, bundles, verify
(`zoo_member.py` says how). Three shares are counted. quantised: a verified bundle of the network after fusion and int8
alone. structural: a verified bundle of it after a structural technique as well, with fewer parameters than the base.
Both are judged without an accuracy limit: random weights have no accuracy; what is printed is agreement with the base
on 32 samples. Every network is an entry of the denominator, whatever became of it.

FOLDER keeps a record per network, and those that are there are not run again. NAMES: comma-separated, or `all`.
Needs the package transformers for the networks that come from it, and the extra `nas` for those of NNI's hub.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

sys.path.insert(0, str(Path(__file__).parent))
from zoo_networks import architectures

from automc.profiles import cache_folder

LIMIT_S, LIMIT_MB = 420.0, 4000.0
GOALS = {"traceback-free": 1.0, "quantised": 0.9, "structural": 0.75}


def limited(command: list[str], environment: dict[str, str], log: Path) -> str:
    """ "" once the command has ended, else the limit it broke; it is ended then. Peak memory is the process's own."""
    started = time.monotonic()
    with log.open("w") as file, subprocess.Popen(command, env=environment, stdout=file, stderr=file) as child:
        watched = psutil.Process(child.pid)
        while child.poll() is None:
            time.sleep(0.2)
            try:
                memory_mb = watched.memory_info().rss / 1e6
            except psutil.Error:
                break
            broken = ""
            if time.monotonic() - started > LIMIT_S:
                broken = f"over {LIMIT_S:.0f} s"
            elif memory_mb > LIMIT_MB:
                broken = f"over {LIMIT_MB:.0f} MB"
            if broken:
                child.send_signal(signal.SIGUSR1)  # it writes down where it is
                time.sleep(1.0)
                child.kill()
                return broken
    return "" if child.returncode == 0 else f"the process ended with {child.returncode}"


def plugged_in(folder: Path) -> Path:
    """A folder for PYTHONPATH in which the zoo's workload is installed as any plug-in is: by an entry point."""
    info = folder / "automc_zoo-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: automc-zoo\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[automc.workloads]\nzoo = zoo_networks.workload:create\n")
    return folder


def visit(name: str, store: Path) -> dict[str, Any]:
    """The record of one network, run in a fresh folder with a copy of the profile `host`."""
    with tempfile.TemporaryDirectory(prefix="automc-zoo-") as scratch:
        work = Path(scratch)
        home = work / "home" / "profiles"
        shutil.copytree(cache_folder() / "profiles" / "host", home / "host")
        here = Path(__file__).parent
        path = [str(plugged_in(work / "plugged")), str(here), str(here.parent), os.environ.get("PYTHONPATH", "")]
        environment = {
            **os.environ, "AUTOMC_HOME": str(home.parent), "PYTHONPATH": os.pathsep.join(filter(None, path)),
            "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1",
        }  # fmt: skip
        (work / "member").mkdir()
        started = time.monotonic()
        command = [sys.executable, "-W", "ignore", str(here / "zoo_member.py"), name, str(work / "member")]
        ended = limited(command, environment, store / f"{name}.log")
        record: dict[str, Any] = json.loads((work / "member" / "record.json").read_text())
        record["seconds"] = round(time.monotonic() - started, 1)
        if ended:
            record["errors"].append({"stage": record["stage"], "kind": "limit", "message": ended})
    architecture = architectures()[name]
    return {"name": name, "source": architecture.source, "kind": architecture.kind, **record}


def why(record: dict[str, Any]) -> str:
    """What stands between the network and both bundles, with module and line as automc names them."""
    said = [f"{e['stage']}: {e['kind']}: {e['message'].splitlines()[0]}" for e in record["errors"]]
    for stage in record.get("stages", []):
        if stage["ok"] is False:
            said.append(f"{stage['name']}: {stage['detail']}" + (f" [{stage['site']}]" if stage["site"] else ""))
    outcomes = record.get("outcomes", {})
    if "quantised" not in record and "failure" in outcomes.get("int8", {}):
        said.append(f"int8: {outcomes['int8']['message']}")
    if "structural" not in record and not record["errors"]:
        for name, reach in record.get("techniques", {}).items():
            if name in ("fusion", "int8_ptq"):
                continue
            if "failure" in outcomes.get(name, {}):
                said.append(f"{name}: {outcomes[name]['message']}")
            elif reach["refused"]:
                said.append(f"{name}: {reach['refused']}")
            elif not reach["targets"]:
                blocked = reach["blocked"][0] if reach["blocked"] else "nothing of its kind"
                said.append(f"{name}: {blocked}")
    return "; ".join(" ".join(item.replace("|", "/").split())[:300] for item in said)


def shares(records: list[dict[str, Any]]) -> dict[str, int]:
    return {
        "traceback-free": sum(
            not r["traceback"] and not any(e["kind"] == "limit" for e in r["errors"]) for r in records
        ),
        "doctor": sum(bool(r.get("doctor")) for r in records),
        "quantised": sum("quantised" in r for r in records),
        "structural": sum("structural" in r for r in records),
    }


def markdown(records: list[dict[str, Any]], conditions: dict[str, Any]) -> str:
    count, found = len(records), shares(records)
    lines = ["# The zoo: networks nobody tuned automc for", "", str(__doc__).split("\n\n")[1].strip(), "",
             "| share of networks | found | of | goal |", "|---|---|---|---|"]  # fmt: skip
    words = {
        "traceback-free": "ended without a traceback, within the limits",
        "doctor": "passed `automc doctor`",
        "quantised": "verified bundle by quantisation alone",
        "structural": "verified bundle by a structural technique too",
    }
    for key, text in words.items():
        goal = f"{GOALS[key]:.0%}" if key in GOALS else ""
        lines.append(f"| {text} | {found[key]} ({found[key] / count:.0%}) | {count} | {goal} |")
    lines += ["", "Conditions: " + ", ".join(f"{key} {value}" for key, value in conditions.items()) + ".", "",
              "| network | source | kind | parameters | doctor | quantised | structural | agreement int8 / structural "
              "| s |", "|---|---|---|---|---|---|---|---|---|"]  # fmt: skip
    for r in records:
        outcomes = r.get("outcomes", {})
        agreed = [_agreement(outcomes.get(name, {})) for name in ("int8", r.get("structural", ""))]
        doctor = "no" if not r.get("doctor") else "without costs" if r.get("without_costs") else "yes"
        lines.append(
            f"| {r['name']} | {r['source']} | {r['kind']} | {r.get('parameters', '')} | {doctor} "
            f"| {'yes' if 'quantised' in r else 'no'} | {r.get('structural', 'no')} | {' / '.join(agreed)} "
            f"| {r['seconds']:.0f} |"
        )
    missed = [r for r in records if "quantised" not in r or "structural" not in r or not r.get("doctor") or r["errors"]]
    lines += ["", "Misses, in automc's words:", ""]
    lines += [f"- **{r['name']}**: {why(r) or r.get('verdict', '')}" for r in missed] or ["none"]
    costless = [r for r in records if r.get("without_costs")]
    if costless:
        lines += ["", "Networks whose costs the profile cannot tell, searched for accuracy and size alone:", ""]
        lines += [f"- **{r['name']}**: {r['without_costs']}" for r in costless]
    return "\n".join(lines) + "\n"


def _agreement(outcome: dict[str, Any]) -> str:
    return f"{outcome['test_accuracy']:.3g}" if "test_accuracy" in outcome else "-"


def main(folder: str, names: str = "all", minutes: float = 120.0, stem: str | None = None) -> None:
    store, end = Path(folder), time.monotonic() + 60 * minutes
    store.mkdir(parents=True, exist_ok=True)
    wanted = list(architectures()) if names == "all" else names.split(",")
    records = []
    for name in wanted:
        path = store / f"{name}.json"
        if not path.is_file():
            if time.monotonic() > end:
                continue
            path.write_text(json.dumps(visit(name, store), indent=1))
        records.append(json.loads(path.read_text()))
        last = records[-1]
        print(
            f"{name}: doctor {last.get('doctor')}, quantised {'quantised' in last}, "
            f"structural {last.get('structural')}, {last['seconds']:.0f} s; {why(last)}", flush=True,
        )  # fmt: skip
    packages = ("automc", "torch", "onnx", "onnxruntime", "torch-pruning", "transformers", "nni")
    conditions = {
        "n": len(records), "of": len(architectures()), "seeds": 1, "threads": 1,
        "machine": platform.processor() or platform.machine(),
        "limits": f"{LIMIT_S:.0f} s and {LIMIT_MB:.0f} MB per network", **{name: version(name) for name in packages},
    }  # fmt: skip
    text = markdown(records, conditions)
    print(text)
    if stem is not None:
        content = {"conditions": conditions, "goals": GOALS, "shares": shares(records), "records": records}
        Path(f"{stem}.json").write_text(json.dumps(content, indent=1) + "\n")
        Path(f"{stem}.md").write_text(text)


if __name__ == "__main__":
    main(*(kind(value) for kind, value in zip((str, str, float, str), sys.argv[1:], strict=False)))
