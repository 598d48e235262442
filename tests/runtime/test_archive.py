"""Files of a folder as a tar stream, both ways, with what hostile agents and broken senders may make of it."""

import asyncio
import io
import os
import tarfile
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nanoclaw_runtime.domain import project
from nanoclaw_runtime.domain.errors import TransferRefused
from nanoclaw_runtime.ipc import archive, streams


def written(root, files):
    for path, content in files.items():
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        os.utime(file, (1_700_000_000, 1_700_000_000))
    return root


def paths(root):
    return [file.path for file in archive.listing(root).files]


def names(folder):
    return sorted(entry.name for entry in folder.iterdir())


def content(root):
    return {path: (root / path).read_bytes() for path in paths(root)}


def stream(*pieces):
    """A reader of pieces, as `unpack` is given one."""
    source = io.BytesIO(b"".join(pieces))
    return source.read


def sent(root):
    return stream(*archive.pack(root, paths(root)))


def tar(*members):
    """An archive of (header fields, content); whatever the fields say goes in."""
    out = b""
    for fields, text in members:
        info = tarfile.TarInfo()
        info.size = len(text)
        for name, value in fields.items():
            setattr(info, name, value)
        out += info.tobuf(tarfile.GNU_FORMAT) + text + b"\0" * (-len(text) % 512)
    return stream(out, b"\0" * 1024)


@pytest.fixture
def there(tmp_path):
    (tmp_path / "there").mkdir()
    return tmp_path / "there"


@pytest.fixture
def here(tmp_path):
    (tmp_path / "here").mkdir()
    return tmp_path / "here"


name = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=20).filter(
    lambda name: name not in {".", ".."}
)


@settings(max_examples=30, deadline=None)
@given(
    files=st.dictionaries(
        st.lists(name, min_size=1, max_size=3).map("/".join), st.binary(max_size=2000), max_size=6
    ).filter(lambda files: not any(a != b and a.startswith(f"{b}/") for a in files for b in files))
)
def test_what_goes_out_comes_in_again(tmp_path_factory, files):
    root = written(tmp_path_factory.mktemp("there"), files)
    target = tmp_path_factory.mktemp("here")
    taken = archive.unpack(target, sent(root))
    assert content(target) == files
    assert (taken.files, taken.bytes, taken.left_out) == (len(files), sum(map(len, files.values())), 0)
    assert archive.listing(target) == archive.listing(root)


def test_times_and_the_right_to_run_stay_and_the_group_may_write(there, here):
    written(there, {"run.sh": b"#!", "notes/a.md": b"a"})
    (there / "run.sh").chmod(0o700)
    (there / "notes/a.md").chmod(0o600)
    archive.unpack(here, sent(there))
    assert [(here / path).stat().st_mode & 0o7777 for path in ("run.sh", "notes", "notes/a.md")] == [
        0o775,
        0o775,
        0o664,
    ]
    assert (here / "run.sh").stat().st_mtime == 1_700_000_000


def test_what_is_no_plain_file_is_counted_and_stays(there, here, tmp_path):
    written(there, {"a": b"a"})
    written(tmp_path, {"outside/secret": b"s"})
    (there / "link").symlink_to(tmp_path / "outside/secret")
    (there / "folder").symlink_to(tmp_path / "outside")
    os.mkfifo(there / "pipe")
    (there / os.fsdecode(b"\xff")).write_text("no name")
    assert paths(there) == ["a"]
    assert archive.listing(there).left_out == 4
    every = ["a", "link", "folder/secret", "pipe", "gone", "a/b"]
    archive.unpack(here, stream(*archive.pack(there, every)))
    assert content(here) == {"a": b"a"}


def test_a_folder_that_is_a_link_is_not_read(there, tmp_path):
    written(there, {"secret": b"s"})
    (tmp_path / "link").symlink_to(there)
    with pytest.raises(NotADirectoryError):
        archive.listing(tmp_path / "link")


def test_a_folder_that_is_not_there_has_no_files(tmp_path):
    assert paths(tmp_path / "missing") == []


@pytest.mark.parametrize(
    "deep", [pytest.param(True, id="folders of empty folders"), pytest.param(False, id="a folder with no end of files")]
)
def test_a_walk_ends_wherever_an_agent_leads_it(there, monkeypatch, deep):
    monkeypatch.setattr(archive, "MOST_FILES", 50)
    for each in range(10):
        for inner in range(10):
            (there / f"{each}/{inner}").mkdir(parents=True) if deep else (there / f"{each}{inner}").touch()
    with pytest.raises(TransferRefused, match="more than 50 files and folders"):
        archive.listing(there)


def test_a_walk_does_not_have_all_names_of_a_folder_in_memory(there):
    written(there, {f"{each:0240d}": b"" for each in range(3000)})
    tracemalloc.start()
    try:
        assert sum(1 for _ in archive.walked(there)) == 3000
        assert tracemalloc.get_traced_memory()[1] < 3000 * 240 / 4
    finally:
        tracemalloc.stop()


def test_names_that_would_fill_the_memory_are_refused_out_and_in(there, here, monkeypatch):
    wide = "\N{GRINNING FACE}" * 50
    written(there, {f"{wide}/{each}": b"" for each in range(6)})
    archived = [*archive.pack(there, paths(there))]
    monkeypatch.setattr(archive, "MOST_NAMES", 1100)  # characters are 300
    with pytest.raises(TransferRefused, match="1100 bytes of names"):
        archive.listing(there)
    with pytest.raises(TransferRefused, match="1100 bytes of names"):
        archive.unpack(here, stream(*archived))
    assert names(here) == []


def test_a_path_that_is_not_wanted_moves_in_no_direction(there, here):
    written(there, {"src/a.ts": b"a", ".env": b"KEY", "store/messages.db": b"db"})
    assert [file.path for file in archive.listing(there, project.wanted).files] == ["src/a.ts"]
    taken = archive.unpack(here, sent(there), project.wanted)
    assert (paths(here), taken.left_out) == (["src/a.ts"], 2)


def test_a_file_that_becomes_something_else_before_it_is_sent_is_left_out(there, here):
    written(there, {"a": b"a", "z": b"z"})
    (there / "a").unlink()
    (there / "a").mkdir()
    archive.unpack(here, stream(*archive.pack(there, ["a", "z"])))
    assert content(here) == {"z": b"z"}


def test_global_headers_are_passed_over(here):
    headers = [({"type": tarfile.XGLTYPE}, b"18 comment=nothing\n") for _ in range(100)]
    assert archive.unpack(here, tar(*headers, ({"name": "a"}, b"1"))).files == 1


def test_a_file_that_shrinks_while_it_is_sent_keeps_its_length(there, here):
    written(there, {"log": b"x" * 600_000, "z": b"z"})
    pieces = archive.pack(there, ["log", "z"])
    first = [next(pieces), next(pieces)]
    os.truncate(there / "log", 300_000)
    archive.unpack(here, stream(*first, *pieces))
    assert (here / "log").read_bytes()[: archive.PIECE] == b"x" * archive.PIECE
    assert (here / "log").stat().st_size == 600_000
    assert (here / "z").read_bytes() == b"z"


REFUSED = [
    pytest.param([({"name": "../evil"}, b"x")], "'../evil'", id="above"),
    pytest.param([({"name": "a/../../evil"}, b"x")], "not one below", id="above, hidden"),
    pytest.param([({"name": "/etc/evil"}, b"x")], "'/etc/evil'", id="absolute"),
    pytest.param([({"name": "d/" * 70 + "x"}, b"x")], "not one below", id="too deep"),
    pytest.param([({"name": ".nanoclaw-transfer-1/x"}, b"x")], "not one below", id="our own folder"),
    pytest.param([({"name": "huge", "size": 2**60}, b"")], "does not fit", id="larger than any volume"),
    pytest.param([({"name": "negative", "size": -512}, b"")], "-512 bytes", id="of negative size"),
    pytest.param([({"name": "x", "type": tarfile.GNUTYPE_LONGNAME, "size": 2**40}, b"")], "header", id="endless name"),
    pytest.param([({"name": "x" * 256}, b"x")], "not one below", id="a longer name than there are"),
    pytest.param([({"name": "x", "type": tarfile.XHDTYPE}, b"")] * 3000, "recursion", id="headers of headers"),
    pytest.param([({"name": "x", "type": tarfile.GNUTYPE_SPARSE}, b"")], "holes", id="holes"),
    pytest.param(
        [({"type": tarfile.XHDTYPE}, b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n"), ({"name": "x"}, b"")],
        "holes",
        id="holes in another way",
    ),
]


def of_size(size, keyword="size"):
    """A file whose size is told by a header in front of its own."""
    record = f" {keyword}={size}\n"
    return [({"type": tarfile.XHDTYPE}, f"{len(record) + 2}{record}".encode()), ({"name": "x"}, b"")]


REFUSED += [
    pytest.param(of_size(-1), "-1 bytes", id="of negative size, told in front of it"),
    pytest.param(of_size(-1, "GNU.sparse.realsize"), "-1 bytes", id="of negative size, told as with holes"),
    pytest.param(of_size(-1024), "-1024 bytes", id="of a size that leads back"),
]


@pytest.mark.parametrize(("members", "told"), REFUSED)
def test_a_bad_archive_changes_nothing(here, members, told):
    written(here, {"a": b"old"})
    with pytest.raises(TransferRefused, match=told):
        archive.unpack(here, tar(({"name": "a"}, b"new"), *members))
    assert content(here) == {"a": b"old"}
    assert names(here) == ["a"]


@pytest.mark.parametrize("cut", [1, 400, 700, 1300])
def test_an_archive_that_breaks_off_changes_nothing(here, there, cut):
    written(there, {"a": b"n" * 1000, "b": b"b"})
    whole = b"".join(archive.pack(there, ["a", "b"]))
    with pytest.raises(TransferRefused, match="send it again"):
        archive.unpack(here, stream(whole[:cut]))
    assert names(here) == []


LEFT_OUT = [
    pytest.param({"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}, id="link"),
    pytest.param({"type": tarfile.LNKTYPE, "linkname": "a"}, id="hard link"),
    pytest.param({"type": tarfile.CHRTYPE}, id="device"),
    pytest.param({"type": tarfile.FIFOTYPE}, id="pipe"),
]


@pytest.mark.parametrize("fields", LEFT_OUT)
def test_entries_that_are_no_plain_files_are_left_out(here, fields):
    taken = archive.unpack(here, tar(({"name": "a"}, b"1"), ({"name": "b"} | fields, b""), ({"name": "c"}, b"2")))
    assert (paths(here), taken.files, taken.left_out) == (["a", "c"], 2, 1)


def test_a_name_that_comes_twice_has_the_later_content(here):
    taken = archive.unpack(here, tar(({"name": "a"}, b"1"), ({"name": "./a"}, b"2")))
    assert (content(here), taken.files) == ({"a": b"2"}, 1)


def test_links_an_agent_left_are_replaced_and_not_followed(here, there, tmp_path):
    written(tmp_path, {"outside/keep": b"keep"})
    (here / "notes").symlink_to(tmp_path / "outside")
    (here / "a").symlink_to(tmp_path / "outside/keep")
    written(there, {"notes/keep": b"new", "a": b"new"})
    archive.unpack(here, sent(there))
    assert (tmp_path / "outside/keep").read_bytes() == b"keep"
    assert content(here) == {"notes/keep": b"new", "a": b"new"}


def test_a_folder_makes_way_for_a_file_and_a_file_for_a_folder(here, there):
    written(here, {"a/b": b"1", "c": b"2"})
    written(there, {"a": b"3", "c/d": b"4"})
    archive.unpack(here, sent(there))
    assert content(here) == {"a": b"3", "c/d": b"4"}


def test_what_a_crash_left_behind_is_swept_and_never_sent(here, there):
    written(here, {".nanoclaw-transfer-old/0": b"half", "a": b"a"})
    assert paths(here) == ["a"]
    written(there, {"b": b"b"})
    archive.unpack(here, sent(there))
    assert names(here) == ["a", "b"]


def test_a_path_outside_removes_none_of_those_before_it(here):
    written(here, {"a": b"a"})
    with pytest.raises(TransferRefused):
        archive.remove(here, ["a", "../b"])
    assert paths(here) == ["a"]


def test_files_are_removed_with_the_folders_they_leave_empty(here, tmp_path):
    written(here, {"a/b/c": b"1", "a/d": b"2", "e/f": b"3"})
    written(tmp_path, {"outside/keep": b"keep"})
    (here / "link").symlink_to(tmp_path / "outside")
    assert archive.remove(here, ["a/b/c", "e/f", "missing", "link/keep"]) == 2
    assert names(here) == ["a", "link"]
    assert names(here / "a") == ["d"]
    assert (tmp_path / "outside/keep").exists()
    with pytest.raises(TransferRefused):
        archive.remove(here, ["../outside/keep"])


async def test_a_stream_of_a_loop_is_read_in_a_thread(there, here):
    written(there, {"a": os.urandom(1_000_000), "b": b""})
    await streams.drained(streams.flowing(archive.pack(there, ["a", "b"])), lambda read: archive.unpack(here, read))
    assert content(here) == content(there)


async def test_a_stream_that_breaks_ends_the_reading(here):
    async def breaking():
        yield b"\0" * 100
        raise ConnectionResetError("gone")

    with pytest.raises(ConnectionResetError, match="gone"):
        await streams.drained(breaking(), lambda read: archive.unpack(here, read))
    assert names(here) == []


async def test_whoever_stops_waiting_stops_the_reading(here):
    reading, go_on = asyncio.Event(), asyncio.Event()

    async def slow():
        reading.set()
        await go_on.wait()
        yield b"\0" * 100
        yield b"\0" * 100

    waiting = asyncio.create_task(streams.drained(slow(), lambda read: archive.unpack(here, read)))
    await reading.wait()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    go_on.set()
    while names(here):
        await asyncio.sleep(0.005)


# Passed on


def sifted(read, wanted=project.wanted):
    return b"".join(archive.sifted(read, wanted))


@settings(max_examples=30, deadline=None)
@given(files=st.dictionaries(name, st.binary(max_size=2000), max_size=6))
def test_what_is_passed_on_is_what_came(files):
    sent = tar(*(({"name": f"src/{each}"}, content) for each, content in files.items()))
    with tarfile.open(fileobj=io.BytesIO(sifted(sent))) as opened:
        assert {member.name: opened.extractfile(member).read() for member in opened} == {
            f"src/{each}": content for each, content in files.items()
        }


def test_what_does_not_move_is_not_passed_on():
    link = {"name": "src/link", "type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}
    sent = tar(({"name": ".env"}, b"KEY"), (link, b""), ({"name": "src/a"}, b"a"))
    with tarfile.open(fileobj=io.BytesIO(sifted(sent))) as opened:
        assert opened.getnames() == ["src/a"]


@pytest.mark.timeout(30)
@pytest.mark.parametrize(("members", "told"), [each for each in REFUSED if each.id != "larger than any volume"])
def test_what_is_refused_where_files_come_in_is_not_passed_on_either(members, told):
    with pytest.raises(TransferRefused, match=told):
        sifted(tar(*members), archive.everything)


@pytest.mark.parametrize("wrong", ["../a", "/a", "a/../../b", f"{'a' * 300}"])
def test_no_path_outside_is_passed_on(wrong):
    with pytest.raises(TransferRefused):
        sifted(tar(({"name": wrong}, b"x")))


def test_an_archive_that_breaks_off_is_not_passed_on_as_a_whole_one(there):
    written(there, {"src/a": b"x" * 1000})
    whole = b"".join(archive.pack(there, ["src/a"]))
    with pytest.raises(TransferRefused, match="no whole tar archive"):
        sifted(stream(whole[:700]))


@given(pieces=st.lists(st.binary(max_size=50)), size=st.integers(1, 100))
def test_gathered_pieces_are_the_same_bytes_in_larger_ones(pieces, size):
    found = list(streams.gathered(pieces, size))
    assert b"".join(found) == b"".join(pieces)
    assert all(len(piece) >= size for piece in found[:-1])
