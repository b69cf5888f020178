import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from hga_chat.documents.sandbox import processes
from hga_chat.documents.sandbox.limits import Limits
from hga_chat.documents.sandbox.processes import ending_children, extract
from hga_chat.documents.types import UnreadableError

LIMITS = Limits(seconds=30)


@pytest.fixture(autouse=True)
def ended():
    with ending_children():
        yield


@pytest.fixture
def worker(tmp_path: Path):
    def write(body: str) -> Path:
        file = tmp_path / f"worker_{len(list(tmp_path.iterdir()))}.py"
        file.write_text(body)
        return file

    return write


def is_running(pid: int) -> bool:
    """Whether a process exists; a zombie counts."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_one_process_handles_one_document_after_another(worker) -> None:
    file = worker(
        "import os\ndef extract(data): return {'pid': os.getpid(), 'text': data.decode()}"
    )
    answers = [extract(file, text, "file", LIMITS) for text in (b"one", b"", b"x" * 300_000)]
    assert [answer["text"] for answer in answers] == ["one", "", "x" * 300_000]
    assert len({answer["pid"] for answer in answers}) == 1
    assert answers[0]["pid"] != os.getpid()


def test_children_end_with_the_documents(worker) -> None:
    file = worker("import os\ndef extract(data): return {'pid': os.getpid()}")
    with ending_children():
        pid = extract(file, b"", "file", LIMITS)["pid"]
        assert is_running(pid)
    assert not is_running(pid)
    assert extract(file, b"", "file", LIMITS)["pid"] != pid


def test_a_refusal_becomes_the_reason(worker) -> None:
    file = worker("def extract(data): return {'error': 'encrypted'}")
    with pytest.raises(UnreadableError, match=r"^encrypted$"):
        extract(file, b"", "file", LIMITS)


def test_a_failure_is_one_line_and_the_next_document_is_parsed(worker) -> None:
    file = worker(
        "def extract(data):\n if data == b'bad': raise KeyError('a\\nb')\n return {'text': 'good'}"
    )
    with pytest.raises(UnreadableError, match=r"^damaged file: KeyError: 'a\\nb'$"):
        extract(file, b"bad", "file", LIMITS)
    assert extract(file, b"good", "file", LIMITS) == {"text": "good"}


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (
            "import os, signal\ndef extract(data): os.kill(os.getpid(), signal.SIGSEGV)",
            "with status -11",
        ),
        ("def extract(data): return {'text': bytearray(1 << 30) and 'x'}", "too much memory"),
        ("def extract(data):\n while True: pass", "parsing took more than 0 s"),
        ("while True: pass", "parsing took more than 0 s"),
        ("import os\nos._exit(3)", "the parser exited with status 3"),
        ("import nowhere", "ModuleNotFoundError: No module named 'nowhere'"),
        ("def extract(data): return {'text': 'x' * 2_000_000}", "more text than can be loaded"),
    ],
)
def test_limits_are_enforced(worker, body: str, reason: str) -> None:
    limits = Limits(seconds=0.4, memory_bytes=1 << 29, answer_bytes=1_000_000)
    started = time.monotonic()
    with pytest.raises(UnreadableError, match=reason):
        extract(worker(body), b"", "file", limits)
    assert time.monotonic() - started < 10


def test_output_of_libraries_does_not_reach_the_answer(worker) -> None:
    file = worker("import os\ndef extract(data):\n print('x')\n os.system('echo y')\n return {}")
    assert extract(file, b"", "file", LIMITS) == {}


def test_processes_that_a_worker_starts_end_with_it(worker, tmp_path: Path) -> None:
    file = worker(
        "import subprocess\n"
        "def extract(data): return {'pid': subprocess.Popen(['sleep', '600']).pid}"
    )
    with ending_children():
        pid = extract(file, b"", "file", LIMITS)["pid"]
    deadline = time.monotonic() + 10
    # Its parent is gone, so another process reaps it.
    while is_running(pid) and Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z":
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_an_interrupt_leaves_no_process(worker, tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    file = worker(
        f"import os\ndef extract(data):\n open({str(pid_file)!r}, 'w').write(str(os.getpid()))\n"
        " while True: pass"
    )

    def interrupt() -> None:
        while not (pid_file.exists() and pid_file.read_text()):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    # Tests that a shell starts in the background ignore interrupts.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            extract(file, b"", "file", LIMITS)
    finally:
        signal.signal(signal.SIGINT, before)
    thread.join()
    assert not is_running(int(pid_file.read_text()))
    assert not processes._children


def test_a_child_ends_when_its_parent_is_killed(worker, tmp_path: Path) -> None:
    file = worker("import os\ndef extract(data): return {'pid': os.getpid()}")
    code = (
        "from pathlib import Path; from hga_chat.documents.sandbox.processes import *; import os\n"
        f"print(extract(Path({str(file)!r}), b'', 'file', Limits())['pid'], flush=True)\n"
        "os.kill(os.getpid(), 9)"
    )
    root = str(Path(processes.__file__).parents[3])
    parent = subprocess.run(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": root},
        check=False,
    )
    pid = int(parent.stdout)
    deadline = time.monotonic() + 10
    while is_running(pid) and Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z":
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_workers_do_not_import_slow_packages(worker) -> None:
    for name in ("html", "zipped", "pdf"):
        file = worker(
            f"import sys\nimport hga_chat.documents.{name}.worker\n"
            "def extract(data): return {'modules': sorted(sys.modules)}"
        )
        modules = {name.partition(".")[0] for name in extract(file, b"", "", LIMITS)["modules"]}
        assert modules.isdisjoint({"torch", "transformers", "numpy", "textual", "rich", "typer"})


def test_modules_in_the_current_folder_are_not_imported(
    worker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("json.py", "lxml.py", "hga_chat.py"):
        (tmp_path / name).write_text("raise SystemExit('taken over')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    file = worker("import hga_chat.documents.zipped.worker\ndef extract(data): return {}")
    assert extract(file, b"", "file", LIMITS) == {}
