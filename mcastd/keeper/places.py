"""Directories and locks: where sockets and state live, and that nobody else uses them."""

import contextlib
import fcntl
import os
import stat

from mcastd.keeper.failure import EX_CONFIG, EX_UNAVAILABLE, CannotRun
from mcastd.keeper.identity import acting_as_server
from mcastd.model.settings import Settings

SOCKET_DIR_MODE = 0o755
"""Sockets have modes of their own."""
STATE_DIR_MODE = 0o750

STATE_LOCK = "lock"


class Lock:
    """An exclusive flock(2) on a file that holds the pid of who has it; the kernel lets go of it when we end."""

    def __init__(self, path: str, remedy: str) -> None:
        """Take the lock; CannotRun if somebody has it."""
        self.path = path
        self._fd = _locked(path, remedy)
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)

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


def _locked(path: str, remedy: str) -> int:
    while True:
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        except OSError as exc:
            raise CannotRun(EX_CONFIG, f"the lock {path} can't be opened: {exc.strerror}; {remedy}") from exc
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            holder = os.pread(fd, 20, 0).decode("ascii", "replace").strip()
            os.close(fd)
            by = f" (pid {holder})" if holder.isdigit() else ""
            raise CannotRun(EX_UNAVAILABLE, f"another mcastd{by} has {path}: stop it, or {remedy}") from exc
        if _still_there(fd, path):
            return fd
        os.close(fd)


def _still_there(fd: int, path: str) -> bool:
    """Whether the name still leads to the file: the last holder may have removed it between our open and our lock."""
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path, follow_symlinks=False))
    except FileNotFoundError:
        return False


class Places:
    """The directories and locks of one run."""

    def __init__(self, settings: Settings) -> None:
        """Make missing directories and take all locks; CannotRun if a directory is of no use or a lock is taken."""
        self._settings = settings
        self._locks: list[Lock] = []
        os.umask(0o022)  # or directories above ours would be closed to the server
        for listen in settings.listens:
            _make_directory(os.path.dirname(listen.path), SOCKET_DIR_MODE, settings)
        _make_directory(settings.state_dir, STATE_DIR_MODE, settings)
        with acting_as_server(settings):
            try:
                self._take_all()
            except BaseException:
                self._let_go()
                raise

    def _take_all(self) -> None:
        settings = self._settings
        for listen in settings.listens:
            remedy = "choose another socket with --listen"
            _check_directory(os.path.dirname(listen.path), "the directory of a socket", remedy, settings)
            self._locks.append(Lock(f"{listen.path}.lock", remedy))
        remedy = "choose another directory with --state-dir"
        _check_directory(settings.state_dir, "the state directory", remedy, settings)
        self._locks.append(Lock(os.path.join(settings.state_dir, STATE_LOCK), remedy))

    def _let_go(self) -> None:
        for lock in self._locks:
            lock.release()
        self._locks.clear()

    def leave(self) -> None:
        """Remove sockets and locks at an orderly end, when no server runs any more."""
        with acting_as_server(self._settings):
            for listen in self._settings.listens:
                with contextlib.suppress(OSError):
                    if stat.S_ISSOCK(os.lstat(listen.path).st_mode):
                        os.unlink(listen.path)
            self._let_go()


def _make_directory(path: str, mode: int, settings: Settings) -> None:
    if os.path.isdir(path):
        return
    try:
        os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
        os.mkdir(path, mode)
        os.chmod(path, mode)
        if settings.change_user:
            os.chown(path, settings.uid, settings.gid)
    except FileExistsError:
        raise CannotRun(EX_CONFIG, f"{path} is not a directory: remove it or choose another") from None
    except OSError as exc:
        raise CannotRun(
            EX_CONFIG, f"the directory {path} can't be made: {exc.strerror}; make it, owned by {settings.user}"
        ) from exc


def _check_directory(path: str, what: str, remedy: str, settings: Settings) -> None:
    if not os.access(path, os.W_OK | os.X_OK, effective_ids=True):
        raise CannotRun(
            EX_CONFIG,
            f"{what}, {path}, can't be written by the server's user {settings.user}: "
            f"give it to that user (also check the directories above it), or {remedy}",
        )
