"""The list of models, while others fetch and remove them."""

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from service.models.errors import ModelError
from service.models.folder import require_mlx_model, stat_weights
from service.models.inventory import installed_models
from tests.models.test_folder import write_model


@contextmanager
def coming_and_going(folders: list[Path]) -> Iterator[None]:
    over = threading.Event()

    def churn() -> None:
        while not over.is_set():
            for folder in folders:
                write_model(folder)
            for folder in folders:
                shutil.rmtree(folder.parent)

    other = threading.Thread(target=churn)
    other.start()
    try:
        yield
    finally:
        over.set()
        other.join()


def test_models_are_listed_while_others_come_and_go(tmp_path: Path) -> None:
    write_model(tmp_path / "models" / "kept")
    with coming_and_going([tmp_path / "models" / f"org{index}" / "model" for index in range(5)]):
        for _ in range(300):
            assert "kept" in [model.name for model in installed_models(tmp_path, tmp_path)]


def test_a_model_that_is_removed_meanwhile_is_a_clear_error(tmp_path: Path) -> None:
    folder = tmp_path / "org" / "model"
    with coming_and_going([folder]):
        for _ in range(1000):
            for reading in (require_mlx_model, stat_weights):
                try:
                    reading(folder)
                except ModelError as exc:
                    assert str(folder) in str(exc)  # noqa: PT017 -- it may as well be there
