import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from service.storage import files_under, locked, private_folder, publish_folder, write_file

HOLD_LOCK = """
import sys
from pathlib import Path
from service.storage import locked
with locked(Path(sys.argv[1]), lambda: None):
    print("held", flush=True)
    sys.stdin.read()
"""


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_folders_are_made_for_the_owner_alone_at_every_level(tmp_path: Path) -> None:
    folder = private_folder(tmp_path / "a" / "b")
    assert (mode(folder), mode(folder.parent)) == (0o700, 0o700)
    assert private_folder(folder) == folder


def test_a_published_folder_replaces_the_old_one_and_is_private(tmp_path: Path) -> None:
    built, target = tmp_path / "built", tmp_path / "models" / "it"
    for folder, content in ((target, "old"), (built, "new")):
        folder.mkdir(parents=True)
        (folder / content).write_text(content)
    built.chmod(0o755)
    publish_folder(built, target)
    assert [path.name for path in target.iterdir()] == ["new"]
    assert (mode(target), mode(target / "new")) == (0o700, 0o600)
    assert not built.exists()


def test_a_written_file_is_whole_private_and_alone(tmp_path: Path) -> None:
    file = tmp_path / "new" / "file"
    for content in (b"first, and longer", b"second"):
        write_file(file, content)
        assert file.read_bytes() == content
    assert mode(file) == 0o600
    assert list(file.parent.iterdir()) == [file]


@pytest.mark.parametrize("end", ["finishes", "is killed"])
def test_the_lock_waits_until_its_holder(end: str, tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    command = [sys.executable, "-c", HOLD_LOCK, str(lock)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        waited = []

        def let_go() -> None:
            waited.append(True)
            holder.kill() if end == "is killed" else holder.communicate()

        with locked(lock, let_go):
            assert waited == [True]
    with locked(lock, lambda: pytest.fail("nobody holds it any more")):
        pass


def test_a_folder_is_walked_while_others_change_it(tmp_path: Path) -> None:
    (tmp_path / "kept").write_bytes(b"12345")
    over = threading.Event()

    def churn() -> None:
        while not over.is_set():
            folders = [tmp_path / str(i) / "a" / "b" for i in range(5)]
            for folder in folders:
                folder.mkdir(parents=True)
                (folder / "file").touch()
            for folder in folders:
                shutil.rmtree(folder.parents[1])

    other = threading.Thread(target=churn)
    other.start()
    try:
        for _ in range(300):
            assert (tmp_path / "kept", 5) in [(path, status.st_size) for path, status in files_under(tmp_path)]
    finally:
        over.set()
        other.join()
