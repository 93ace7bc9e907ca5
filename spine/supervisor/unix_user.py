"""The Unix user that runs Postgres: the current user, or nobody if that is root, since Postgres refuses root."""

import os
import pwd
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from spine.supervisor.command import StartError

NOBODY = 65534


@dataclass(frozen=True)
class UnixUser:
    """How to run a command as another user: a `uid`, or a command `prefix`. `owner` owns the server's files."""

    uid: int | None = None
    prefix: tuple[str, ...] = ()
    owner: int | None = None


CURRENT_USER = UnixUser()
# A user namespace in which root's files belong to nobody: the server can read below /root, and no other user can.
MAPPED_NOBODY = UnixUser(prefix=("unshare", "-U", f"--map-user={NOBODY}", f"--map-group={NOBODY}"), owner=0)
# Containers often forbid user namespaces but leave root this capability, which passes closed parent directories.
CAPABLE_NOBODY = UnixUser(
    prefix=(
        *("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--pdeathsig=INT"),
        *("--inh-caps=-all,+dac_override", "--ambient-caps=-all,+dac_override", "--bounding-set=-all,+dac_override"),
    ),
    owner=NOBODY,
)
NOBODY_USER = UnixUser(uid=NOBODY, owner=NOBODY)


def choose_user(binary: Path, directory: Path) -> UnixUser:
    """Choose the user for a server program and its data directory.

    Never changes the mode of a directory that is not Spine's own. Raises StartError if no user can run the program.
    """
    candidates: tuple[UnixUser, ...] = (NOBODY_USER, MAPPED_NOBODY, CAPABLE_NOBODY)
    if os.geteuid() != 0:
        # initdb needs the name of its user; containers often run under a uid without a name.
        candidates = (CURRENT_USER,) if _has_name(os.geteuid()) else (replace(MAPPED_NOBODY, owner=None), CURRENT_USER)
    for user in candidates:
        if _can_run(user, ("sh", "-c", 'cd "$1" && exec "$0" --version', str(binary), str(directory))):
            return user
    if os.geteuid() != 0:
        raise StartError(f"cannot run {binary} in {directory}.")
    raise StartError(
        f"Postgres refuses to run as root, and nobody may not enter {directory} or run {binary}. Start Spine as "
        "another user, set DATABASE_URL, or set SPINE_DATA_DIR to a directory that others may enter (/srv/spine, say)."
    )


def _has_name(uid: int) -> bool:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True


def _can_run(user: UnixUser, argv: Sequence[str]) -> bool:
    options = {} if user.uid is None else {"user": user.uid, "group": user.uid, "extra_groups": []}
    try:
        done = subprocess.run(  # type: ignore[call-overload]
            [*user.prefix, *argv], cwd="/", capture_output=True, check=False, timeout=20, **options
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return bool(done.returncode == 0)


def chown_tree(user: UnixUser, path: Path) -> None:
    """Change the owner of a directory and its contents to the user's `owner`, if it has one (only root chooses one)."""
    if user.owner is None or path.stat().st_uid == user.owner:
        return
    for parent, _, names in os.walk(path):
        os.chown(parent, user.owner, user.owner)
        for name in names:
            os.chown(Path(parent, name), user.owner, user.owner, follow_symlinks=False)
