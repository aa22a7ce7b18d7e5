"""Files appear whole or not at all, and nothing but files is written over."""

import os
from contextlib import suppress

import pandas as pd
import pytest

from qsde.errors import InputError
from qsde.writing import reserve, write_atomic


def test_atomic_write_replaces_only_when_complete(tmp_path):
    path = tmp_path / "fit.json"
    path.write_text("old")
    with suppress(RuntimeError), write_atomic(path) as file:
        file.write("half")
        raise RuntimeError
    assert path.read_text() == "old"
    with write_atomic(path) as file:
        file.write("näw\n")
        assert path.read_text() == "old"
    assert path.read_bytes() == "näw\n".encode()
    with write_atomic(tmp_path / "b.parquet", binary=True) as file:
        pd.DataFrame({"a": [1]}).to_parquet(file)
    assert pd.read_parquet(tmp_path / "b.parquet")["a"].tolist() == [1]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b.parquet", "fit.json"]


def test_atomic_write_names_the_folder_to_make(tmp_path):
    with pytest.raises(
        InputError, match="cannot be written: No such file or directory; make the folder first: mkdir -p"
    ):
        write_atomic(tmp_path / "none" / "fit.json").__enter__()
    with pytest.raises(InputError, match="is a folder: give a file name in it"), write_atomic(tmp_path):
        pass


def test_devices_and_pipes_are_left_alone(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(InputError, match=f"{pipe}: is a device or a pipe: give a file name"), write_atomic(pipe):
        pass
    assert pipe.is_fifo()
    assert list(tmp_path.iterdir()) == [pipe]


def test_a_file_to_come_has_its_folder_made_and_is_not_there_yet(tmp_path):
    reserve(tmp_path / "new" / "folder" / "fit.json")
    assert list((tmp_path / "new" / "folder").iterdir()) == []
    (tmp_path / "old").write_text("old")
    reserve(tmp_path / "old")
    assert (tmp_path / "old").read_text() == "old"
    with pytest.raises(InputError, match="cannot be written"):
        reserve(tmp_path / "old" / "fit.json")


def test_atomic_write_keeps_usual_permissions(tmp_path):
    with write_atomic(tmp_path / "a"):
        pass
    (tmp_path / "b").touch()
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode
