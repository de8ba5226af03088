"""The script that fetches programs of others, with package tools that only look like them."""

import os
import shutil
import subprocess
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / "fetch_programs.sh"
TOOLS = (
    "bash",
    "awk",
    "cat",
    "chmod",
    "dirname",
    "id",
    "ln",
    "mkdir",
    "rm",
    "sh",
    "touch",
    "uname",
)
PROGRAMS = {
    "prometheus": ("prometheus", "promtool"),
    "nginx": ("nginx",),
    "haproxy": ("haproxy",),
    "iproute2": ("ip",),
    "util-linux": ("setpriv", "taskset", "unshare"),
    "chromium-headless-shell": ("chromium-headless-shell",),
}
"""What the packages hold, of which the machine here says that all are installed."""
CONTAINER_PROGRAMS = ("buildah", "podman", "runc", "mmdebstrap")
"""What root needs for containers, which is there."""
APT_GET = """#!/bin/sh
case " $* " in
  *" download "*) for package; do :; done; echo "$package" >> "$LOG"; touch "$package.deb" ;;
esac
"""
DPKG_DEB = """#!/bin/sh
mkdir -p "$3/usr/sbin"
case "$2" in
{cases}
  *) echo "no such file: $2" >&2; exit 2 ;;
esac
for program in $programs; do
  printf '#!/bin/sh\\n' > "$3/usr/sbin/$program"; chmod +x "$3/usr/sbin/$program"
done
"""
PYTHON = """#!/bin/sh
[ "$2" != venv ] || { mkdir -p "$3/bin"; cp "$0" "$3/bin/python"; }
"""


def make_tools(folder: Path) -> None:
    """What the script may call: the machine's plain tools, and ours in place of package tools."""
    folder.mkdir()
    for tool in (*TOOLS, "cp"):
        found = shutil.which(tool)
        assert found is not None
        (folder / tool).symlink_to(found)
    cases = "\n".join(
        f'  {package}.deb) programs="{" ".join(programs)}" ;;'
        for package, programs in PROGRAMS.items()
    )
    scripts = {
        "apt-get": APT_GET,
        "dpkg-deb": DPKG_DEB.replace("{cases}", cases),
        "python": PYTHON,
        "npm": "#!/bin/sh\n",
        "node": "#!/bin/sh\n",
        **dict.fromkeys(CONTAINER_PROGRAMS, "#!/bin/sh\n"),
    }
    for name, script in scripts.items():
        (folder / name).write_text(script, encoding="utf-8")
        (folder / name).chmod(0o755)


def fetch(tmp_path: Path) -> subprocess.CompletedProcess[str]:
    """Runs the script."""
    tools = tmp_path / "tools"
    return subprocess.run(
        ["bash", str(SCRIPT), str(tmp_path / "programs"), str(tools / "python")],
        env={"PATH": str(tools), "LOG": str(tmp_path / "log")},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_package_that_is_installed_without_its_program_is_fetched(tmp_path: Path) -> None:
    """Slim images drop files of packages; apt has nothing to install then, but the file."""
    make_tools(tmp_path / "tools")
    done = fetch(tmp_path)
    assert done.returncode == 0, done.stderr
    fetched = set((tmp_path / "log").read_text(encoding="utf-8").split())
    # Programs of administrators are looked for where the machine keeps them, too.
    assert fetched >= {"prometheus", "util-linux"}
    assert fetched <= PROGRAMS.keys()
    for package in fetched:
        for program in PROGRAMS[package]:
            assert os.access(tmp_path / "programs" / "bin" / program, os.X_OK)
    assert list((tmp_path / "programs" / "packages").iterdir()) == []


def test_package_without_the_program_is_named(tmp_path: Path) -> None:
    """Nothing is unpacked that is not there: the message says which program is missing."""
    make_tools(tmp_path / "tools")
    (tmp_path / "tools" / "dpkg-deb").write_text("#!/bin/sh\n", encoding="utf-8")
    done = fetch(tmp_path)
    assert done.returncode == 1
    assert done.stderr == "prometheus is not in Debian's package\n"


def test_nothing_that_was_fetched_is_said(tmp_path: Path) -> None:
    """An empty folder of packages is no file by the name of the pattern."""
    make_tools(tmp_path / "tools")
    (tmp_path / "tools" / "apt-get").write_text("#!/bin/sh\n", encoding="utf-8")
    done = fetch(tmp_path)
    assert done.returncode == 1
    assert done.stderr == "prometheus is not in Debian's package\n"
