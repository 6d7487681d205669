"""Folders in which one process works at a time, files that are known by their digests, and where code comes from."""

import subprocess
import sys

import pytest

from isnet_bench.io import files, provenance
from isnet_bench.io.errors import BenchError

HOLD = """
import sys, time
from pathlib import Path
from isnet_bench.io.files import locked
with locked(Path(sys.argv[1])):
    (Path(sys.argv[1]) / ".weights.12345.safetensors").write_text("half")
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_lock_keeps_others_out_and_ends_with_its_process(tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        message = f"process {holder.pid} on .* is using .*: wait until it has ended"
        with pytest.raises(BenchError, match=message), files.locked(tmp_path):
            pass
    finally:
        holder.kill()
        holder.wait()
    with files.locked(tmp_path), pytest.raises(BenchError, match="is using"), files.locked(tmp_path):
        pass
    # Nor is anything left of what the killed process was writing, or of the locks.
    assert not list(tmp_path.iterdir())


def test_an_error_inside_ends_the_lock_and_is_not_changed(tmp_path):
    with pytest.raises(PermissionError), files.locked(tmp_path / "new"):
        raise PermissionError("of what is done there")
    assert not (tmp_path / "new").exists()
    with files.locked(tmp_path / "new"):
        pass
    (tmp_path / "file").touch()
    with pytest.raises(BenchError, match="cannot be written"), files.locked(tmp_path / "file"):
        pass


def test_digests_are_those_of_the_bytes(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    # FIPS 180-2, appendix B.1.
    known = {"a": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"}
    assert files.digests(tmp_path, ["a"]) == known
    files.verify(tmp_path, {**known, "missing": ""}, "make it")
    (tmp_path / "a").write_bytes(b"abd")
    with pytest.raises(BenchError, match="a is damaged, or belongs to something else: make it"):
        files.verify(tmp_path, known, "make it")


def test_provenance_outside_a_clone(monkeypatch):
    monkeypatch.setattr(provenance.subprocess, "run", lambda *_, **__: (_ for _ in ()).throw(FileNotFoundError("git")))
    assert provenance.git() == {"git_commit": None, "git_dirty": None}


def test_provenance_in_a_clone(monkeypatch, tmp_path):
    commands = ["init -q", "config user.email a@b.c", "config user.name a", "add .", "commit -qm first"]
    (tmp_path / "file").write_text("1")
    for command in commands:
        provenance.subprocess.run(["git", *command.split()], cwd=tmp_path, check=True)
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "module.py"))
    clean = provenance.git()
    assert len(clean["git_commit"]) == 40
    assert clean["git_dirty"] is False
    (tmp_path / "method.py").touch()
    assert provenance.git() == {**clean, "git_dirty": True}
    (tmp_path / "method.py").unlink()
    (tmp_path / "file").write_text("2")
    assert provenance.git() == {**clean, "git_dirty": True}
