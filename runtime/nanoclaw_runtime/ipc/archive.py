"""The files of a folder as a tar stream, out and in, without ever holding more than a piece of it.

Agents write these folders, so they are walked by descriptor and no link is followed; only plain
files and the folders above them move. What comes in is kept aside until all of it has arrived and
then put in place file by file: an archive that breaks off, or names a place outside, changes nothing.
"""

from __future__ import annotations

import contextlib
import math
import os
import secrets
import shutil
import stat
import tarfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn, cast

from nanoclaw_runtime.domain.errors import TransferRefused
from nanoclaw_runtime.domain.transfer import FileFacts, FileList, FilesTaken, everything
from nanoclaw_runtime.ipc.descriptors import make_folder, opened_folder, remove_tree, walked_folder

PIECE: Final = 256 * 1024
"""Bytes that are read at once."""
MOST_FILES: Final = 200_000
"""Files and folders of one area, and of one archive."""
MOST_NAMES: Final = 16 * 1024 * 1024
"""Bytes of all their paths together: a list of them is in memory more than once, in wider characters."""
DEEPEST: Final = 64
"""Folders above a file; deeper ones are left out."""
RESERVE: Final = 64 * 1024 * 1024
"""Bytes of a volume that an upload leaves free."""
FILE_MODE: Final = 0o664
RUNNABLE_MODE: Final = 0o775

_STAGING: Final = ".nanoclaw-transfer-"
_END: Final = b"\0" * (2 * tarfile.BLOCKSIZE)
_HEADER_LIMIT: Final = 16 * 1024
_LONGEST_NAME: Final = 255
# Bytes; what file systems take.
_LATEST: Final = 2**33
_LONG_HEADERS: Final = frozenset(
    {
        tarfile.GNUTYPE_LONGNAME,
        tarfile.GNUTYPE_LONGLINK,
        tarfile.XHDTYPE,
        tarfile.XGLTYPE,
        tarfile.SOLARIS_XHDTYPE,
    }
)

Wanted = Callable[[str], bool]
"""Whether a path below the area moves at all; asked for folders, too."""


class Bounds:
    """How much of an area or an archive is looked at: an agent may make it to have no end, or to fill the memory."""

    def __init__(self, where: str, remedy: str = "remove caches and what else can be made again") -> None:
        self._where, self._remedy = where, remedy
        self._files, self._names = 0, 0

    def count(self, path: str) -> None:
        """One more file or folder. Raises TransferRefused."""
        self._files += 1
        self._names += len(os.fsencode(path))
        if self._files > MOST_FILES or self._names > MOST_NAMES:
            most = f"{MOST_FILES} files and folders, or {MOST_NAMES} bytes of names"
            raise TransferRefused(f"{self._where} has more than {most}; {self._remedy}")


def listing(root: Path, wanted: Wanted = everything) -> FileList:
    """The plain files below `root`, by path; none when there is no such folder.

    Raises OSError, and TransferRefused for more than `Bounds` let through.
    """
    found = list(walked(root, wanted))
    files = [file for file in found if file is not None]
    return FileList(files=tuple(sorted(files, key=lambda file: file.path)), left_out=len(found) - len(files))


def walked(root: Path, wanted: Wanted = everything) -> Iterator[FileFacts | None]:
    """As `listing`, one after the other and in any order; None for each thing that does not move."""
    with contextlib.suppress(FileNotFoundError), opened_folder(root) as folder:
        yield from _Walk(root.name, wanted).below(folder, "", DEEPEST)


def path_below(path: str) -> str:
    """The path of a file below its area, as it is told. Raises TransferRefused for one that is none."""
    return "/".join(_parts(path))


def pack(root: Path, paths: Iterable[str]) -> Iterator[bytes]:
    """The files as a tar stream; those that are gone or are no plain files any more are left out.

    A file that grows or shrinks meanwhile has the size it began with, zeros for what is missing.
    """
    for path in paths:
        *above, name = path.split("/")
        with contextlib.ExitStack() as stack:
            try:
                folder = stack.enter_context(walked_folder(root, *above))
                descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
            except OSError:
                continue
            stack.callback(os.close, descriptor)
            facts = os.fstat(descriptor)
            if stat.S_ISREG(facts.st_mode):
                with open(descriptor, "rb", buffering=0, closefd=False) as file:
                    runnable = bool(facts.st_mode & stat.S_IXUSR)
                    yield from _member(path, file, size=facts.st_size, modified=facts.st_mtime, runnable=runnable)
    yield _END


def sifted(read: Callable[[int], bytes], wanted: Wanted = everything) -> Iterator[bytes]:
    """A tar stream of others as one of ours: plain files below the folder, and nothing else of it.

    Nothing is kept. Raises what `unpack` raises; what came before may have been used by then.
    """
    with _judged():
        for archive, member in _members(read):
            if (path := _plain(member, wanted)) is not None:
                runnable = bool(member.mode & stat.S_IXUSR)
                content = archive.extractfile(member)
                yield from _member(path, content, size=member.size, modified=member.mtime, runnable=runnable)
    yield _END


def unpack(root: Path, read: Callable[[int], bytes], wanted: Wanted = everything) -> FilesTaken:
    """Take in a tar stream that `read` gives in pieces of at most so many bytes, empty at its end.

    A file replaces what has its path; what else lies there stays. Raises TransferRefused for
    what is no archive, leads outside or does not fit, and OSError; nothing has changed then.
    """
    with opened_folder(root) as folder:
        _sweep(folder)
        staging = f"{_STAGING}{secrets.token_hex(8)}"
        os.mkdir(staging, 0o700, dir_fd=folder)
        try:
            with opened_folder(staging, folder) as aside:
                incoming = _Incoming(aside, wanted)
                incoming.receive(read)
                for path, name in incoming.staged.items():
                    _put(folder, path, name, aside)
                return FilesTaken(files=len(incoming.staged), bytes=incoming.bytes, left_out=incoming.left_out)
        finally:
            remove_tree(staging, folder)


def remove(root: Path, paths: Sequence[str]) -> int:
    """Remove files, and the folders that are empty then; how many files were there.

    Raises TransferRefused for a path that is none, and nothing has changed then.
    """
    removed = 0
    for parts in [_parts(path) for path in paths]:
        *above, name = parts
        try:
            with walked_folder(root, *above) as folder:
                os.unlink(name, dir_fd=folder)
        except OSError:
            continue
        removed += 1
        while above:
            *rest, name = above
            try:
                with walked_folder(root, *rest) as folder:
                    os.rmdir(name, dir_fd=folder)
            except OSError:
                break
            above = rest
    return removed


class _Walk:
    """Through an area. Of a folder that is open no more than one name is in memory: there may be any number."""

    def __init__(self, where: str, wanted: Wanted) -> None:
        self._wanted, self._bounds = wanted, Bounds(where)

    def below(self, folder: int, prefix: str, depth: int) -> Iterator[FileFacts | None]:
        """The plain files; None for each thing that does not move."""
        with os.scandir(folder) as entries:
            for entry in entries:
                path = f"{prefix}{entry.name}"
                self._bounds.count(path)
                if not prefix and entry.name.startswith(_STAGING):
                    continue
                if not _is_text(entry.name):
                    yield None
                elif self._wanted(path):
                    yield from self._entry(folder, entry.name, path, depth)

    def _entry(self, folder: int, name: str, path: str, depth: int) -> Iterator[FileFacts | None]:
        try:
            facts = os.stat(name, dir_fd=folder, follow_symlinks=False)
            if stat.S_ISREG(facts.st_mode):
                yield FileFacts(path=path, size=facts.st_size, modified=_time(facts.st_mtime))
            elif stat.S_ISDIR(facts.st_mode) and depth:
                with opened_folder(name, folder) as inner:
                    yield from self.below(inner, f"{path}/", depth - 1)
            else:
                yield None
        except OSError:
            yield None  # it went away, or is not for us to read


def _member(path: str, file: Any, *, size: int, modified: float, runnable: bool) -> Iterator[bytes]:
    info = tarfile.TarInfo(path)
    info.size, info.mtime = size, _time(modified)
    info.mode = RUNNABLE_MODE if runnable else FILE_MODE
    yield info.tobuf(tarfile.PAX_FORMAT)
    left = size
    while left > 0:
        piece = file.read(min(PIECE, left)) or b"\0" * min(PIECE, left)
        left -= len(piece)
        yield piece
    yield b"\0" * (-size % tarfile.BLOCKSIZE)


@contextlib.contextmanager
def _judged() -> Iterator[None]:
    """What `tarfile` finds wrong with an archive, as a refusal of it."""
    try:
        yield
    except (tarfile.TarError, ValueError, RecursionError) as error:  # headers are read within each other
        raise TransferRefused(f"this is no whole tar archive ({error}); send it again") from error


def _members(read: Callable[[int], bytes]) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
    """What is in a tar stream but for folders, one after the other."""
    with tarfile.open(mode="r|", fileobj=cast("Any", _Source(read)), tarinfo=_Header) as archive:
        bounds = Bounds("the archive", "send fewer at once")
        for member in archive:
            bounds.count(member.name)
            if member.size < 0:  # of a header that is read behind the one that `_Header` has seen
                raise tarfile.ReadError(f"a file of {member.size} bytes")
            if not member.isdir():
                yield archive, member
            archive.members = []  # type: ignore[attr-defined]  # it would remember every one of them


def _plain(member: tarfile.TarInfo, wanted: Wanted) -> str | None:
    """The path of a plain file that moves. Raises TransferRefused for one that leads outside."""
    path = path_below(member.name)
    return path if member.isreg() and not member.issparse() and wanted(path) else None


class _Incoming:
    """An archive on its way in: its files lie aside under numbers."""

    def __init__(self, aside: int, wanted: Wanted) -> None:
        self._aside, self._wanted = aside, wanted
        self.staged: dict[str, str] = {}
        self.bytes = 0
        self.left_out = 0

    def receive(self, read: Callable[[int], bytes]) -> None:
        with _judged():
            for archive, member in _members(read):
                self._take(archive, member)

    def _take(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        path = _plain(member, self._wanted)
        if path is None:
            self.left_out += 1
            return
        self._see_that_it_fits(path, member.size)
        content = archive.extractfile(member)
        assert content is not None  # it is a plain file
        name = str(len(self.staged) + self.left_out)
        descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=self._aside)
        with os.fdopen(descriptor, "wb") as file:
            shutil.copyfileobj(content, file, PIECE)
            file.flush()
            os.fchmod(descriptor, RUNNABLE_MODE if member.mode & stat.S_IXUSR else FILE_MODE)
            time = _time(member.mtime)
            os.utime(descriptor, (time, time))
        if (older := self.staged.pop(path, None)) is not None:
            os.unlink(older, dir_fd=self._aside)
            self.left_out += 1
        self.staged[path] = name
        self.bytes += member.size

    def _see_that_it_fits(self, path: str, size: int) -> None:
        volume = os.fstatvfs(self._aside)
        if size < 0 or size > volume.f_bavail * volume.f_frsize - RESERVE:
            raise TransferRefused(
                f"{path[:80]!r} has {size} bytes and does not fit on the volume; make it larger, or send less"
            )


class _Header(tarfile.TarInfo):
    """A header that refuses to be read into memory when it is too long to be a name."""

    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        if self.size < 0 or (self.type in _LONG_HEADERS and self.size > _HEADER_LIMIT):
            raise tarfile.ReadError(f"a header of {self.size} bytes")
        if self.type == tarfile.XGLTYPE:
            archive.pax_headers = {}  # it would keep those of before, too, however many
        return cast("tarfile.TarInfo", super()._proc_member(archive))  # type: ignore[misc]

    def _proc_sparse(self, archive: tarfile.TarFile) -> NoReturn:  # noqa: ARG002
        raise tarfile.ReadError("a list of holes without an end")

    def _proc_gnusparse_10(self, *_: object) -> NoReturn:
        raise tarfile.ReadError("a list of holes without an end")


class _Source:
    """What `tarfile` wants of a file that is read once."""

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self.read = read


def _put(root: int, path: str, name: str, aside: int) -> None:
    """Give a file that lies aside its place; links and files where folders have to be go."""
    *above, last = path.split("/")
    with contextlib.ExitStack() as stack:
        folder = root
        for part in above:
            make_folder(part, folder)
            folder = stack.enter_context(opened_folder(part, folder))
            _open_to_the_group(folder)
        try:
            os.rename(name, last, src_dir_fd=aside, dst_dir_fd=folder)
        except IsADirectoryError:
            remove_tree(last, folder)
            os.rename(name, last, src_dir_fd=aside, dst_dir_fd=folder)


def _open_to_the_group(folder: int) -> None:
    mode = stat.S_IMODE(os.fstat(folder).st_mode)
    if mode & RUNNABLE_MODE != RUNNABLE_MODE:
        with contextlib.suppress(PermissionError):  # somebody else's folder is as its owner wants it
            os.fchmod(folder, mode | RUNNABLE_MODE)


def _sweep(folder: int) -> None:
    """Remove what an upload left behind that a crash cut off."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(_STAGING):
                remove_tree(entry.name, folder)


def _parts(path: str) -> list[str]:
    """The path below its area. Raises TransferRefused for one that is none."""
    parts = [part for part in path.split("/") if part not in {"", "."}]
    outside = path.startswith("/") or ".." in parts or not parts or parts[0].startswith(_STAGING)
    if outside or len(parts) > DEEPEST + 1 or not all(map(_is_name, parts)):
        raise TransferRefused(f"the path {path[:80]!r} is not one below the folder; nothing was changed")
    return parts


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_name(part: str) -> bool:
    """Whether it can be a file's; one that cannot would be found out between two files that are in place already."""
    return _is_text(part) and len(part.encode()) <= _LONGEST_NAME and "\0" not in part


def _time(seconds: float) -> int:
    return int(min(max(seconds, 0), _LATEST)) if math.isfinite(seconds) else 0
