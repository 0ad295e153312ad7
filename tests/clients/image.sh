#!/usr/bin/env bash
# image.sh: curl, and Python with requests, as a container image for the pods of the node tier: target/images/clients.tar, remit.test/clients:1.
#
# The machine's own programs with the libraries that they are linked with, each at its own path; requests as it is pinned in
# python/requirements.txt, from the user's cache when it was there before. No Docker, no registry of images.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

missing=()
for package in curl python3; do
  command -v "$package" >/dev/null || missing+=("$package")
done
python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
if [ ${#missing[@]} -gt 0 ]; then
  command -v apt-get >/dev/null || die "please install ${missing[*]} (Debian's names; this is not a Debian, so it is left to you)"
  [ "$(id -u)" = 0 ] || die "these packages are missing: ${missing[*]}. Run as root, or: apt-get install ${missing[*]}"
  say "installing ${missing[*]}"
  { apt-get -q update && DEBIAN_FRONTEND=noninteractive apt-get -qy install --no-install-recommends "${missing[@]}"; } >&2
fi

# requests, and what it needs
pinned() { awk '/^[a-z]/ { wanted = $1 ~ /^(certifi|charset-normalizer|idna|requests|urllib3)==/ } wanted' "$here/python/requirements.txt"; }
read -r python library < <(python3 -c 'import os, sys; print(os.path.realpath(os.path.join(sys.base_prefix, "bin", "python%d.%d" % sys.version_info[:2])), os.path.dirname(os.__file__))')
cache=${XDG_CACHE_HOME:-$HOME/.cache}/remit/clients
packages=$cache/requests-$({ uname -m; "$python" -V; pinned; } | sha256sum | cut -c1-16)
if [ ! -d "$packages" ]; then
  mkdir -p "$cache"
  partial=$(mktemp -d "$cache/partial.XXXXXX")
  trap 'rm -rf "$partial"' EXIT
  pinned >"$partial/requirements.txt"
  "$python" -m venv "$partial/venv"
  "$partial/venv/bin/python" -m pip install -q --disable-pip-version-check --no-deps --only-binary :all: --require-hashes --no-compile \
    --target "$partial/packages" -r "$partial/requirements.txt" >&2
  mv -T "$partial/packages" "$packages" 2>/dev/null || [ -d "$packages" ]
fi

modules=$(find "$library/lib-dynload" -name '*.so')
# shellcheck disable=SC2086
libraries=$(ldd "$(command -v curl)" "$python" $modules $(find "$packages" -name '*.so') | grep -o '/[^ ]* (0x' | sed 's/ (0x$//' | sort -u)
{
  for file in $libraries; do echo "$(realpath "$file"):$file"; done
  for file in $modules; do echo "$file:$file"; done
  find "$library" -name '*.py' ! -path '*/test/*' ! -path '*/tests/*' ! -path '*/site-packages/*' ! -path '*/dist-packages/*' ! -path '*/idlelib/*' ! -path '*/lib2to3/*' ! -path '*/ensurepip/*' ! -name '* *' -printf '%p:%p:644\n'
  find "$packages" -type f ! -name '* *' -printf '%p:opt/packages/%P:644\n'
} >"$checkout/target/clients-image.txt"
mkdir -p "$checkout/target/images"
# shellcheck disable=SC2046
"$checkout/tests/cluster/mkimage.py" "$checkout/target/images/clients.tar" remit.test/clients:1 --env PYTHONPATH=/opt/packages --env PYTHONDONTWRITEBYTECODE=1 \
  --env PATH=/bin --dir tmp:1777 --link "bin/python3:$python" --text 'etc/passwd=nonroot:x:65532:65532:nonroot:/tmp:/bin/sh
' "$(realpath "$(command -v curl)"):bin/curl" "$(realpath "$(command -v sleep)"):bin/sleep" "$python:$python" $(sort -u "$checkout/target/clients-image.txt")
say "target/images/clients.tar: remit.test/clients:1 ($(du -h "$checkout/target/images/clients.tar" | cut -f1))"
