"""Executors in this process and on a local Ray: the same answers, and what happens when a worker breaks."""

from __future__ import annotations

import ipaddress
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from executor_jobs import BrokenFactory, Factory, Job

from automc.errors import CompressionError, ConfigError, MeasurementError, RunError
from automc.executor import Executor, InlineExecutor, RayExecutor, WorkerInfo, WorkerTraceback

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def ray_executor() -> Iterator[RayExecutor[Job, int]]:
    executor: RayExecutor[Job, int] = RayExecutor(Factory(), workers=2, threads=1)
    yield executor
    executor.close()


@pytest.fixture(params=["inline", "ray"])
def executor(request: pytest.FixtureRequest) -> Iterator[Executor[Job, int]]:
    if request.param == "ray":
        yield request.getfixturevalue("ray_executor")
    else:
        inline: InlineExecutor[Job, int] = InlineExecutor(Factory())
        yield inline
        inline.close()


def answers(executor: Executor[Job, int], jobs: list[Job]) -> list[tuple[Job, int, WorkerInfo]]:
    for job in jobs:
        executor.submit(job)
    return [executor.next() for _ in jobs]


def test_every_job_comes_back_once_with_its_answer(executor: Executor[Job, int]) -> None:
    done = answers(executor, [Job(number) for number in range(7)])
    assert sorted((job.number, result) for job, result, _ in done) == [(n, n * n) for n in range(7)]
    assert all(info.pid > 0 and info.seconds >= 0 and info.host for _, _, info in done)


def test_waiting_without_a_job_is_refused(executor: Executor[Job, int]) -> None:
    with pytest.raises(RunError, match="no job was submitted"):
        executor.next()


def test_an_error_of_ours_arrives_as_it_was_raised(executor: Executor[Job, int]) -> None:
    executor.submit(Job(1, "break"))
    with pytest.raises(CompressionError) as caught:
        executor.next()
    assert type(caught.value) is CompressionError
    assert caught.value.next_step == "cut elsewhere"
    assert answers(executor, [Job(3)])[0][1] == 9  # the worker lives on


def test_a_bug_arrives_with_the_line_it_happened_on(executor: Executor[Job, int]) -> None:
    executor.submit(Job(1, "bug"))
    with pytest.raises(ZeroDivisionError) as caught:
        executor.next()
    assert "return number // 0" in "".join(traceback.format_exception(caught.value))
    assert answers(executor, [Job(3)])[0][1] == 9


def test_a_noisy_device_is_tried_again(executor: Executor[Job, int], tmp_path: Path) -> None:
    mark = tmp_path / "attempts"
    assert answers(executor, [Job(5, "noisy once", str(mark))])[0][1] == 25
    assert mark.stat().st_size == 2


def test_a_device_that_stays_noisy_stops_the_run(executor: Executor[Job, int], tmp_path: Path) -> None:
    mark = tmp_path / "attempts"
    executor.submit(Job(5, "noisy", str(mark)))
    with pytest.raises(RunError, match=r"gave up after 3 attempts.*the device is noisy") as caught:
        executor.next()
    assert mark.stat().st_size == 3
    assert isinstance(caught.value.__cause__, MeasurementError)


def test_torch_has_the_threads_that_were_asked_for(executor: Executor[Job, int]) -> None:
    import torch

    before = torch.get_num_threads()
    assert answers(executor, [Job(0, "threads")])[0][1] == 1
    assert torch.get_num_threads() == before


def test_a_broken_set_up_is_the_users_error() -> None:
    executor: InlineExecutor[Job, int] = InlineExecutor(BrokenFactory())
    executor.submit(Job(1))
    with pytest.raises(ConfigError, match="no such data"):
        executor.next()


# --- Ray ------------------------------------------------------------------------------------------------------------


def test_two_workers_are_busy_at_once(ray_executor: RayExecutor[Job, int]) -> None:
    done = answers(ray_executor, [Job(number, "nap") for number in range(4)])
    spans = sorted((info.started_unix_s, info.started_unix_s + info.seconds, info.pid) for _, _, info in done)
    assert len({pid for _, _, pid in spans}) == 2
    assert spans[1][0] < spans[0][1], "the second job started before the first was done"
    assert spans[1][2] != spans[0][2]
    assert all(info.pid != os.getpid() for _, _, info in done)


def test_a_guest_for_whom_no_processor_is_free_is_told_so(ray_executor: RayExecutor[Job, int]) -> None:
    answers(ray_executor, [Job(n, "nap") for n in range(2)])
    with pytest.raises(RunError, match=r"1 processors are wanted.*0 free"):
        RayExecutor(Factory(), workers=1)
    assert answers(ray_executor, [Job(2)])[0][1] == 4  # its host goes on


def test_a_worker_makes_its_function_once(tmp_path: Path) -> None:
    mark = tmp_path / "made"
    executor: InlineExecutor[Job, int] = InlineExecutor(Factory(str(mark)))
    assert len(answers(executor, [Job(number) for number in range(5)])) == 5
    assert mark.stat().st_size == 1


def test_a_job_whose_worker_is_killed_runs_again_on_a_fresh_one(
    ray_executor: RayExecutor[Job, int], tmp_path: Path
) -> None:
    mark = tmp_path / "attempts"
    before = {info.pid for _, _, info in answers(ray_executor, [Job(n, "nap") for n in range(4)])}
    done = answers(ray_executor, [Job(6, "die once", str(mark)), Job(7)])
    assert {job.number: result for job, result, _ in done} == {6: 36, 7: 49}
    assert mark.stat().st_size == 2
    after = {info.pid for _, _, info in answers(ray_executor, [Job(n, "nap") for n in range(4)])}
    assert len(after) == 2
    assert len(after - before) == 1


def test_a_job_that_kills_every_worker_stops_the_run(ray_executor: RayExecutor[Job, int], tmp_path: Path) -> None:
    mark = tmp_path / "attempts"
    ray_executor.submit(Job(6, "die", str(mark)))
    with pytest.raises(RunError, match=r"gave up after 3 attempts.*its worker died"):
        ray_executor.next()
    assert mark.stat().st_size == 3
    assert answers(ray_executor, [Job(3)])[0][1] == 9


def test_the_workers_traceback_is_chained(ray_executor: RayExecutor[Job, int]) -> None:
    ray_executor.submit(Job(1, "bug"))
    with pytest.raises(ZeroDivisionError) as caught:
        ray_executor.next()
    assert isinstance(caught.value.__cause__, WorkerTraceback)
    assert "executor_jobs.py" in str(caught.value.__cause__)


def test_warnings_as_errors_here_do_not_reach_the_workers(ray_executor: RayExecutor[Job, int]) -> None:
    assert answers(ray_executor, [Job(4, "warn")])[0][1] == 16


def test_workers_keep_openmp_to_its_threads(ray_executor: RayExecutor[Job, int]) -> None:
    assert answers(ray_executor, [Job(0, "environment")])[0][1] == 1


def test_every_socket_of_ray_listens_on_the_loopback_address_alone(ray_executor: RayExecutor[Job, int]) -> None:
    answers(ray_executor, [Job(n, "nap") for n in range(2)])
    me = psutil.Process()
    listening = [
        (process.name(), socket.laddr.ip, socket.laddr.port)
        for process in [me, *me.children(recursive=True)]
        for socket in process.net_connections(kind="inet")
        if socket.status == psutil.CONN_LISTEN or (socket.type.name == "SOCK_DGRAM" and not socket.raddr)
    ]
    assert {"raylet", "gcs_server"} <= {name for name, _, _ in listening}
    assert [item for item in listening if not _is_loopback(item[1])] == []


def _is_loopback(text: str) -> bool:
    address = ipaddress.ip_address(text)
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


def test_a_token_guards_the_local_ray_and_is_not_written_home(ray_executor: RayExecutor[Job, int]) -> None:
    assert os.environ["RAY_AUTH_MODE"] == "token"
    assert len(os.environ["RAY_AUTH_TOKEN"]) == 64
    script = "import ray; ray.init(address='auto', log_to_driver=False)"
    intruder = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "RAY_AUTH_TOKEN": "0" * 64, "RAY_ADDRESS": _address()},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert intruder.returncode != 0
    assert "auth" in intruder.stderr.lower()


def _address() -> str:
    import ray

    return str(ray.get_runtime_context().gcs_address)


LIFE = """
import os, sys, json
from pathlib import Path
import psutil
from automc.executor import RayExecutor
from executor_jobs import Factory, Job
before = dict(os.environ)
executor = RayExecutor(Factory())
executor.submit(Job(3)); assert executor.next()[1] == 9
started = [child.pid for child in psutil.Process().children(recursive=True)]
executor.close(); executor.close()
assert dict(os.environ) == before, set(os.environ.items()) ^ set(before.items())
second = RayExecutor(Factory(os.path.abspath("made")), workers=1)
for number in range(5): second.submit(Job(number))
assert sorted(second.next()[1] for _ in range(5)) == [0, 1, 4, 9, 16]
second.close()
assert Path("made").stat().st_size == 1
print(json.dumps([pid for pid in started if psutil.pid_exists(pid)]))
"""


def test_a_closed_ray_leaves_no_process_no_file_and_no_variable(tmp_path: Path) -> None:
    home, temporary = tmp_path / "home", Path("/tmp") / f"amc{os.getpid()}"
    home.mkdir()
    temporary.mkdir()
    try:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", LIFE],
            env={**os.environ, "HOME": str(home), "TMPDIR": str(temporary), "PYTHONPATH": str(Path(__file__).parent)},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=100,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout == "[]\n"
        assert done.stderr == ""
        assert list(home.iterdir()) == []
        assert list(temporary.iterdir()) == []
    finally:
        temporary.rmdir()


def test_a_killed_main_process_leaves_no_workers_behind() -> None:
    """Ray's own two agents stay until they find their node gone, about a minute; workers and servers go at once."""
    main = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("executor_jobs.py"))], stdout=subprocess.PIPE, text=True
    )
    assert main.stdout is not None
    with main.stdout:
        children = [psutil.Process(int(pid)) for pid in main.stdout.readline().split()]
    watched = [child for child in children if child.name() not in {"ray::DashboardAgent", "ray::RuntimeEnvAgent"}]
    assert sum(child.name().startswith("ray::_Worker") for child in watched) == 2
    assert {"raylet", "gcs_server"} <= {child.name() for child in watched}
    main.kill()
    main.wait()
    _, alive = psutil.wait_procs(watched, timeout=20)
    assert alive == []


def test_interrupting_a_wait_leaves_an_executor_that_closes(tmp_path: Path) -> None:
    script = (
        "import time; from automc.executor import RayExecutor; from executor_jobs import Sleeper\n"
        "executor = RayExecutor(Sleeper()); executor.submit(300.0); print('ready', flush=True)\n"
        "try:\n    executor.next()\nexcept KeyboardInterrupt:\n    executor.close(); print('closed')\n"
    )
    main = subprocess.Popen(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert main.stdout is not None
    with main.stdout:
        assert main.stdout.readline() == "ready\n"
        time.sleep(1.0)
        os.killpg(main.pid, 2)  # as Ctrl-C in a terminal: the whole group
        assert main.stdout.read() == "closed\n"
    assert main.wait() == 0


def test_a_ray_that_dies_is_an_error_and_no_endless_wait() -> None:
    """Without the check, `ray.wait` waits for ever: the node that would answer is gone."""
    script = """
import psutil, time
from automc.errors import RunError
from automc.executor import RayExecutor
from executor_jobs import Sleeper

executor = RayExecutor(Sleeper(), workers=1)
executor.submit(300.0)
time.sleep(1)
(raylet,) = [child for child in psutil.Process().children() if child.name() == "raylet"]
raylet.kill()
try:
    executor.next()
except RunError as error:
    print(error.message, "|", error.next_step)
executor.close()
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    assert "Ray died" in done.stdout
    assert done.stdout.endswith("automc resume RUN: finished trials are kept\n")


def test_an_address_where_no_ray_is_says_so() -> None:
    script = (
        "from automc.errors import RunError\nfrom automc.executor import RayExecutor\n"
        "from executor_jobs import Factory\n"
        "try:\n    RayExecutor(Factory(), address='127.0.0.1:1')\nexcept RunError as error:\n    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent), "RAY_AUTH_MODE": "disabled"},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert "Ray could not be reached at 127.0.0.1:1" in done.stdout, done.stderr


def test_ray_is_imported_by_one_file_and_only_when_used() -> None:
    package = Path(__file__).parents[1] / "automc"
    importing = [
        path.name for path in package.rglob("*.py") if any(
            line.strip().startswith(("import ray", "from ray")) for line in path.read_text().splitlines()
        )
    ]  # fmt: skip
    assert importing == ["executor.py"]
    checked = subprocess.run(
        [sys.executable, "-c", "import sys, automc.executor; sys.exit('ray' in sys.modules or 'torch' in sys.modules)"]
    )
    assert checked.returncode == 0
