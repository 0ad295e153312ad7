#!/usr/bin/env bash
# setup.sh: what the clients need. Installs the Debian packages that are missing, builds the programs in Go and h2spec, and makes
# Python's packages into a venv; target/clients/{go,h2spec,python} lead to them.
#
# They lie in ${XDG_CACHE_HOME:-~/.cache}/remit/clients/<what>-<key>, once for each content of what they are made of. A second run builds
# nothing and needs no network.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

missing=()
while read -r command package; do
  command -v "$command" >/dev/null || missing+=("$package")
done <<P
curl curl
git git
ip iproute2
javac default-jdk-headless
jq jq
nft nftables
node nodejs
python3 python3
setpriv util-linux
P
python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
if [ ${#missing[@]} -gt 0 ]; then
  command -v apt-get >/dev/null || die "please install ${missing[*]} (Debian's names; this is not a Debian, so it is left to you)"
  [ "$(id -u)" = 0 ] || die "these packages are missing: ${missing[*]}. Run as root, or: apt-get install ${missing[*]}"
  say "installing ${missing[*]}"
  # `apt-get update` only when something is missing: it needs the network.
  { apt-get -q update && DEBIAN_FRONTEND=noninteractive apt-get -qy install --no-install-recommends "${missing[@]}"; } >&2
fi
command -v go >/dev/null || die "Go is not installed; tests/clients/go/go.mod names the version"
# Java 11 has the HTTP client and runs a file of source; the client is written for 17.
[ "$(java -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p')" -ge 17 ] || die "the Java client needs Java 17"
[ "$(node -p 'process.versions.node.split(".")[0]')" -ge 18 ] || die "the Node client needs Node 18, which has fetch"

cache=${XDG_CACHE_HOME:-$HOME/.cache}/remit/clients
mkdir -p "$cache" "$checkout/target/clients"

# made WHAT KEY COMMAND...: COMMAND DIRECTORY makes it, where it is not there. Swapped in as a whole.
made() {
  local what=$1 directory=$cache/$1-$2 partial
  shift 2
  if [ ! -d "$directory" ]; then
    say "building the clients' $what"
    partial=$(mktemp -d "$cache/partial.XXXXXX")
    # shellcheck disable=SC2064
    trap "rm -rf '$partial'" EXIT
    "$@" "$partial" >&2 || die "the clients' $what could not be built"
    chmod 755 "$partial"
    mv -T "$partial" "$directory" 2>/dev/null || [ -d "$directory" ]
    trap - EXIT
  fi
  ln -sfnT "$directory" "$checkout/target/clients/$what"
}

key() { { uname -m; cat; } | sha256sum | cut -c1-16; }

export CGO_ENABLED=0 GOWORK=off
go_programs() { (cd "$here/go" && nice -n 5 go build -trimpath -buildvcs=false -o "$1/" ./server ./standin ./nethttp ./grpc ./websocket); }
h2spec() { (cd "$here/h2spec" && nice -n 5 go build -trimpath -buildvcs=false -o "$1/" github.com/summerwind/h2spec/cmd/h2spec); }
python() {
  python3 -m venv "$1" &&
    "$1/bin/python" -m pip install -q --disable-pip-version-check --no-deps --only-binary :all: --require-hashes -r "$here/python/requirements.txt"
}

made go "$(cd "$here/go" && find . -type f | LC_ALL=C sort | xargs sha256sum | key)" go_programs
made h2spec "$(cd "$here/h2spec" && sha256sum go.mod go.sum | key)" h2spec
made python "$({ readlink -f "$(command -v python3)"; python3 -V; cat "$here/python/requirements.txt"; } | key)" python
