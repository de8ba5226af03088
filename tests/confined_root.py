"""A container's root file system: read-only but for ``/tmp``, for a user without rights.

It is made of mounts in a namespace of the process that is to be confined, and ends with it. Needs
root, ``unshare`` and ``setpriv``.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

USER = 65532
"""That of the image."""
MODELS = Path("/models")
"""Where the store is mounted."""
_SYSTEM = ("/bin", "/etc", "/lib", "/lib64", "/sbin", "/usr")
_DEVICES = ("/dev/null", "/dev/urandom", "/dev/zero")
_SCRIPT = """\
set -eu
root=$1; store=$2; shift 2
read_only() { mount --bind "$1" "$2"; mount -o remount,bind,ro "$2"; }
mount -t tmpfs -o mode=755 tmpfs "$root"
mkdir "$root/tmp" "$root/dev" "$root/proc" "$root/models"
mount -t tmpfs -o mode=1777,nosuid,nodev,noexec tmpfs "$root/tmp"
mount -t proc -o ro proc "$root/proc"
read_only "$store" "$root/models"
while [ "$1" != -- ]; do
  if [ -L "$1" ]; then cp --no-dereference "$1" "$root$1"
  elif [ -d "$1" ]; then mkdir -p "$root$1"; read_only "$1" "$root$1"
  else touch "$root$1"; read_only "$1" "$root$1"
  fi
  shift
done
shift
mount -o remount,ro "$root"
exec chroot "$root" setpriv --reuid=$USER_ID --regid=$USER_ID --clear-groups \\
  --inh-caps=-all --bounding-set=-all --no-new-privs env HOME=/nonexistent "$@"
"""


def confinement(folder: Path, store: Path, service: Path) -> tuple[str, ...]:
    """What to put before a command that is to run in it, as user 65532 without capabilities.

    Args:
        folder: An empty folder to mount it on; outside of the namespace it stays empty.
        store: Becomes ``/models``.
        service: The source root of the server, under its own path like all of Python.
    """
    own = {str(service), sys.prefix, sys.base_prefix}
    paths = [path for path in (*_SYSTEM, *_DEVICES, *sorted(own)) if os.path.exists(path)]
    script = _SCRIPT.replace("$USER_ID", str(USER))
    return (
        *("unshare", "--mount", "--propagation", "private"),
        *("sh", "-c", script, "confine", str(folder), str(store), *paths, "--"),
    )
