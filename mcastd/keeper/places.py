"""Directories, locks and ports: where sockets and state live, and that nobody else uses them."""

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Mapping

from mcastd.keeper.failure import EX_CONFIG, EX_UNAVAILABLE, CannotRun
from mcastd.keeper.identity import acting_as_server
from mcastd.keeper.ports import Look, Ports
from mcastd.model.settings import Settings

SOCKET_DIR_MODE = 0o755
"""Sockets have modes of their own."""
STATE_DIR_MODE = 0o750

STATE_LOCK = "lock"

_NOT_WRITABLE = frozenset({errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOSPC, errno.EDQUOT})

_READ_ONLY_REMEDY = "mount it writable (in a unit of systemd: RuntimeDirectory=, StateDirectory= or ReadWritePaths=)"


class Lock:
    """An exclusive flock(2) on a file that holds the pid of who has it; the kernel lets go of it when we end."""

    def __init__(self, path: str, remedy: str, held: int | None = None, *, as_it_is: bool = False) -> None:
        """Take the lock; CannotRun if somebody has it. `held`: a descriptor by which it was taken before, ours from now on.

        Where no file can be made, `as_it_is` allows a lock on one that is there, or on its directory.
        """
        self.path = path
        if held is not None and not _still_there(held, path):
            os.close(held)
            held = None
        self._fd = _locked(path, remedy, as_it_is=as_it_is) if held is None else held
        with contextlib.suppress(OSError):  # Who has it is for people alone; on a full disk they are not told.
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)

    def fileno(self) -> int:
        """The descriptor that has the lock."""
        return self._fd

    def release(self) -> None:
        """Remove the file, then let go: so a successor never locks a file that is about to vanish."""
        if self._fd >= 0:
            with contextlib.suppress(OSError):
                os.unlink(self.path)
            self.close()

    def close(self) -> None:
        """Let go and leave the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _locked(path: str, remedy: str, *, as_it_is: bool) -> int:
    while True:
        try:
            fd = _opened(path, as_it_is=as_it_is)
        except OSError as exc:
            what = "it is a symbolic link" if exc.errno == errno.ELOOP else exc.strerror
            raise CannotRun(
                EX_CONFIG, f"the lock file {path} can't be opened: {what}; remove it if it is a stale one, or {remedy}"
            ) from exc
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            holder = b"" if stat.S_ISDIR(os.fstat(fd).st_mode) else os.pread(fd, 20, 0)
            os.close(fd)
            by = f" (pid {int(holder)})" if holder.strip().isdigit() else ""
            raise CannotRun(EX_UNAVAILABLE, f"another mcastd{by} has {path}: stop it, or {remedy}") from exc
        if _still_there(fd, path):
            return fd
        os.close(fd)


def _opened(path: str, *, as_it_is: bool) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    except OSError as exc:
        if not as_it_is or exc.errno not in _NOT_WRITABLE:
            raise
    with contextlib.suppress(FileNotFoundError):
        return os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    return os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY)


def _still_there(fd: int, path: str) -> bool:
    """Whether the name still leads to the file: the last holder may have removed it between our open and our lock."""
    locked = os.fstat(fd)
    try:
        return os.path.samestat(locked, os.stat(path, follow_symlinks=False))
    except FileNotFoundError:
        return stat.S_ISDIR(locked.st_mode)


class Places:
    """The directories and locks of one run."""

    def __init__(self, settings: Settings, held: Mapping[str, int] | None = None, ports: Look | None = None) -> None:
        """Make missing directories and take all locks; CannotRun if a directory is of no use or a lock is taken.

        `held` are descriptors, ours from now on, by which an earlier image of this process has taken locks, by path, and ports,
        by address. `ports`: have TCP ports too, and look so; None = they are somebody else's to look after.
        """
        self._settings = settings
        self._held = dict(held or {})
        self._look = ports
        self._ports: Ports | None = None
        self._locks: list[Lock] = []
        self._made: list[str] = []
        """Directories that are removed again if the daemon does not start."""
        os.umask(0o022)  # or directories above ours would be closed to the server
        try:
            for listen in settings.listens:
                self._make_directory(os.path.dirname(listen.path), SOCKET_DIR_MODE)
            self._make_directory(settings.state_dir, STATE_DIR_MODE)
            with acting_as_server(settings):
                self._take_all()
            for fd in self._held.values():
                os.close(fd)
            self._held.clear()
        except BaseException:
            with acting_as_server(settings):
                self._let_go()
            self._remove_made()
            raise

    def _take_all(self) -> None:
        settings = self._settings
        for listen in settings.listens:
            remedy = "choose another socket with --listen"
            _check_directory(os.path.dirname(listen.path), "the directory of a socket", remedy, settings)
            _check_socket(listen.path, remedy)
            self._lock(f"{listen.path}.lock", remedy)
        remedy = "choose another directory with --state-dir"
        if not os.access(settings.state_dir, os.R_OK | os.X_OK, effective_ids=True):
            _check_directory(settings.state_dir, "the state directory", remedy, settings)
        # Where it can only be read, what is stored is in force, and the server says that it takes no writes, and why.
        self._lock(os.path.join(settings.state_dir, STATE_LOCK), remedy, as_it_is=True)
        if self._look is not None:
            self._ports = Ports(settings.remotes, self._held, self._look)

    def _lock(self, path: str, remedy: str, *, as_it_is: bool = False) -> None:
        self._locks.append(Lock(path, remedy, self._held.pop(path, None), as_it_is=as_it_is))

    def locks(self) -> dict[str, int]:
        """Descriptors of all locks by path, and of ports by address, for the next image of this process."""
        ports = self._ports.descriptors() if self._ports is not None else {}
        return {one.path: one.fileno() for one in self._locks} | ports

    def _let_go(self) -> None:
        if self._ports is not None:
            self._ports.close()
        for lock in self._locks:
            lock.release()
        self._locks.clear()

    def keep(self) -> None:
        """The daemon starts: the directories that were made stay."""
        self._made.clear()

    def let_go(self) -> None:
        """Let somebody else have it all, as it is."""
        with acting_as_server(self._settings):
            self._let_go()

    def leave(self) -> None:
        """Remove sockets and locks at an orderly end, when no server runs any more."""
        with acting_as_server(self._settings):
            listens = self._settings.listens
            for path in [path for one in listens for path in (one.path, one.path_of(1), one.path_of(2))]:
                with contextlib.suppress(OSError):
                    if stat.S_ISSOCK(os.lstat(path).st_mode):
                        os.unlink(path)
            self._let_go()
        self._remove_made()

    def _make_directory(self, path: str, mode: int) -> None:
        settings = self._settings
        if os.path.isdir(path):
            return
        try:
            os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
            os.mkdir(path, mode)
            self._made.append(path)
            os.chmod(path, mode)
            if settings.change_user:
                os.chown(path, settings.uid, settings.gid)
        except FileExistsError:
            raise CannotRun(EX_CONFIG, f"{path} is not a directory: remove it or choose another") from None
        except OSError as exc:
            remedy = _READ_ONLY_REMEDY if exc.errno == errno.EROFS else f"make it, owned by {settings.user}"
            raise CannotRun(EX_CONFIG, f"the directory {path} can't be made: {exc.strerror}; {remedy}") from exc

    def _remove_made(self) -> None:
        for path in reversed(self._made):
            with contextlib.suppress(OSError):  # somebody else has put something there
                os.rmdir(path)
        self._made.clear()


def _check_socket(path: str, remedy: str) -> None:
    """Refuse what gRPC would not replace: only a socket that was left is removed by it."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        what = "a directory" if stat.S_ISDIR(mode) else "a symbolic link" if stat.S_ISLNK(mode) else "a file"
        raise CannotRun(EX_CONFIG, f"{path} is {what}, not a socket: remove it, or {remedy}")


def _is_read_only(path: str) -> bool:
    try:
        return os.statvfs(path).f_flag & os.ST_RDONLY != 0
    except OSError:  # it may not even be reached
        return False


def _check_directory(path: str, what: str, remedy: str, settings: Settings) -> None:
    if not os.access(path, os.W_OK | os.X_OK, effective_ids=True):
        if _is_read_only(path):
            raise CannotRun(EX_CONFIG, f"{what}, {path}, is on a read-only file system: {_READ_ONLY_REMEDY}, or {remedy}")
        raise CannotRun(
            EX_CONFIG,
            f"{what}, {path}, can't be written by the server's user {settings.user}: "
            f"give it to that user (also check the directories above it), or {remedy}",
        )
