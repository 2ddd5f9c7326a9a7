import errno
import fcntl
import os

import pytest

from avrecog.errors import LockError
from avrecog.runtime.files import atomic_path, sole_writer
from other_writer import other_writer


@pytest.fixture
def holder(tmp_path):
    """A process that holds the lock of tmp_path/out."""
    with other_writer(tmp_path / "out") as process:
        yield process


def test_the_file_appears_whole_when_the_block_ends(tmp_path):
    path = tmp_path / "deep" / "table.csv"
    with atomic_path(path) as temporary:
        temporary.write_text("new")
        assert not path.exists()
        assert temporary.parent == path.parent
        assert temporary.suffix == ".csv"
    assert path.read_text() == "new"
    assert [file.name for file in path.parent.iterdir()] == ["table.csv"]


def test_the_old_file_stays_when_the_block_raises(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError, match="half-way"), atomic_path(path) as temporary:  # noqa: PT012
        temporary.write_text("half")
        raise ZeroDivisionError("half-way")
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["table.csv"]


def test_a_block_that_writes_nothing_fails_and_leaves_the_old_file(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("old")
    with pytest.raises(FileNotFoundError, match="table"), atomic_path(path):
        pass
    assert path.read_text() == "old"


def test_a_second_writer_is_refused_with_the_first_ones_pid(tmp_path, holder):
    message = rf"out: process {holder.pid} is writing it; .*`kill {holder.pid}`"
    with pytest.raises(LockError, match=message), sole_writer(tmp_path / "out"):
        pass


def test_a_holder_that_has_not_named_itself_is_not_to_be_killed(tmp_path, holder):
    (tmp_path / "out.writer.lock").write_text("")
    message = "out: process unknown is writing it; wait for it to end$"
    with pytest.raises(LockError, match=message), sole_writer(tmp_path / "out"):
        pass


def test_a_lock_that_cannot_be_taken_is_not_kept_open(tmp_path, monkeypatch):
    def refuse(descriptor, operation):
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    before = os.listdir("/proc/self/fd")
    with pytest.raises(OSError, match="no locks"), sole_writer(tmp_path / "out"):
        pass
    assert os.listdir("/proc/self/fd") == before


@pytest.mark.parametrize("how", ["end", "kill"])
def test_the_lock_is_free_when_its_process_has_ended(tmp_path, holder, how):
    if how == "kill":
        holder.kill()
        holder.wait()
    else:
        holder.communicate("\n")
    with sole_writer(tmp_path / "out"):
        assert (tmp_path / "out.writer.lock").read_text() == str(os.getpid())
    assert not list(tmp_path.glob("*.lock"))


def test_a_lock_whose_file_was_removed_meanwhile_is_taken_anew(tmp_path, monkeypatch):
    flock, n = fcntl.flock, []

    def removed_first(descriptor, how):
        flock(descriptor, how)
        if not n.append(1) and len(n) == 1:
            (tmp_path / "out.writer.lock").unlink()

    monkeypatch.setattr(fcntl, "flock", removed_first)
    with sole_writer(tmp_path / "out"):
        assert (tmp_path / "out.writer.lock").read_text() == str(os.getpid())
    assert len(n) == 2


def test_the_lock_is_free_after_the_block_even_if_it_raised(tmp_path):
    with pytest.raises(ZeroDivisionError, match="inside"), sole_writer(tmp_path / "out"):
        raise ZeroDivisionError("inside")
    with sole_writer(tmp_path / "out"):
        pass


def test_two_folders_have_two_locks(tmp_path, holder):
    with sole_writer(tmp_path / "other"):
        pass
