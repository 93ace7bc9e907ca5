"""As whom Postgres runs: as ourselves, or, where we are root, as nobody, since it refuses root."""

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
    """How to become another one: `uid` to change to, words to put before the command, and who owns the files."""

    uid: int | None = None
    prefix: tuple[str, ...] = ()
    owner: int | None = None


OURSELVES = UnixUser()
# A user namespace in which root's own files are nobody's: reaches what lies below /root, opens it to no one.
MAPPED = UnixUser(prefix=("unshare", "-U", f"--map-user={NOBODY}", f"--map-group={NOBODY}"), owner=0)
# Containers often forbid user namespaces yet leave root this capability, which passes closed parent directories.
CAPABLE = UnixUser(
    prefix=(
        *("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--pdeathsig=INT"),
        *("--inh-caps=-all,+dac_override", "--ambient-caps=-all,+dac_override", "--bounding-set=-all,+dac_override"),
    ),
    owner=NOBODY,
)
PLAIN_NOBODY = UnixUser(uid=NOBODY, owner=NOBODY)


def user_for(binary: Path, directory: Path) -> UnixUser:
    """Choose for a server program and the directory that holds its data.

    Never changes the rights of a directory that is not Spine's own. Raises StartError when no way is open.
    """
    ways: tuple[UnixUser, ...] = (PLAIN_NOBODY, MAPPED, CAPABLE)
    if os.geteuid() != 0:
        # initdb asks for the name of its user; containers often run under a number that has none.
        ways = (OURSELVES,) if _has_name(os.geteuid()) else (replace(MAPPED, owner=None), OURSELVES)
    for user in ways:
        if _works(user, ("sh", "-c", 'cd "$1" && exec "$0" --version', str(binary), str(directory))):
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


def _works(user: UnixUser, argv: Sequence[str]) -> bool:
    as_whom = {} if user.uid is None else {"user": user.uid, "group": user.uid, "extra_groups": []}
    try:
        done = subprocess.run(  # type: ignore[call-overload]
            [*user.prefix, *argv], cwd="/", capture_output=True, check=False, timeout=20, **as_whom
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return bool(done.returncode == 0)


def chown_tree(user: UnixUser, path: Path) -> None:
    """Hand a directory and all in it to the account, where root is the one who gives."""
    if user.owner is None or path.stat().st_uid == user.owner:
        return
    for parent, _, names in os.walk(path):
        os.chown(parent, user.owner, user.owner)
        for name in names:
            os.chown(Path(parent, name), user.owner, user.owner, follow_symlinks=False)
