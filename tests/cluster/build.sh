#!/usr/bin/env bash
# build.sh [GROUP...]           builds what is missing of the groups (default: all)
# build.sh link DIR GROUP...    the same, then makes DIR a directory of links to the programs
# build.sh check                compares versions.env with every go.mod
# build.sh prune                removes cached builds which this checkout does not use (another checkout's cluster
#                               which still runs from them would break: end it first)
#
# Groups: api (kube-apiserver, kube-controller-manager, kubectl, etcd, helm), node (everything a node needs,
# and the images), helm3, kwok, extras (both).
#
# Each Go module is built once per content of its go.mod, go.sum, Go files and flags, into
# ${XDG_CACHE_HOME:-~/.cache}/remit/cluster/<module>-<key>/, in a temporary directory which is renamed when
# complete; one build at a time per user. A second checkout, or a clean clone, builds nothing.
# Does not need root; only `packages` (called by cluster.sh) does.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

export CGO_ENABLED=0 GOWORK=off
kube_version="-X k8s.io/component-base/version.gitVersion=$KUBERNETES -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=$(cut -d. -f2 <<<"$KUBERNETES") -X k8s.io/component-base/version.gitTreeState=clean"
kube_programs="kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy kubectl"

# Helm 3 would take itself for a client of Kubernetes 1.20 and refuse charts (`helm template`) which want a newer one.
helm3_kube_minor=$(awk '$1 == "k8s.io/client-go" { split($2, v, "."); print v[2]; exit }' "$here/modules/helm3/go.mod")
helm3_version="-X helm.sh/helm/v3/internal/version.version=$HELM3"
for package in chartutil lint/rules; do
  helm3_version+=" -X helm.sh/helm/v3/pkg/$package.k8sVersionMajor=1 -X helm.sh/helm/v3/pkg/$package.k8sVersionMinor=$helm3_kube_minor"
done

# One line per program: group, module, name in the cache, package, linker flags.
recipes() {
  cat <<R
api|probe|mkpki|./mkpki|
api|etcd|etcd|go.etcd.io/etcd/server/v3|
api|kube|hyper|./hyper|$kube_version
api|helm4|helm|helm.sh/helm/v4/cmd/helm|-X helm.sh/helm/v4/internal/version.version=$HELM4
api|probe|probe|.|
node|containerd|containerd|github.com/containerd/containerd/v2/cmd/containerd|-X github.com/containerd/containerd/v2/version.Version=$CONTAINERD
node|containerd|containerd-shim-runc-v2|github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2|-X github.com/containerd/containerd/v2/version.Version=$CONTAINERD
node|containerd|ctr|github.com/containerd/containerd/v2/cmd/ctr|-X github.com/containerd/containerd/v2/version.Version=$CONTAINERD
node|cniplugins|ptp|github.com/containernetworking/plugins/plugins/main/ptp|
node|cniplugins|loopback|github.com/containernetworking/plugins/plugins/main/loopback|
node|cniplugins|host-local|github.com/containernetworking/plugins/plugins/ipam/host-local|
node|cniplugins|portmap|github.com/containernetworking/plugins/plugins/meta/portmap|
node|coredns|coredns|.|
node|netpol|netpol|.|
helm3|helm3|helm3|helm.sh/helm/v3/cmd/helm|$helm3_version
kwok|kwok|kwok|sigs.k8s.io/kwok/cmd/kwok|
R
}

in_groups() { # reads recipes, keeps those of the groups; a group of "node" includes "api"
  local wanted=" $* "
  [[ $wanted == *" all "* || $wanted == "  " ]] && wanted=" api node helm3 kwok "
  [[ $wanted != *" node "* ]] || wanted+="api "
  [[ $wanted != *" extras "* ]] || wanted+="helm3 kwok "
  local line
  while IFS= read -r line; do [[ $wanted == *" ${line%%|*} "* ]] && printf '%s\n' "$line"; done
  return 0
}

module_names() { cut -d'|' -f2 | awk '!seen[$0]++'; }

# What a module's programs are made of decides its key: sources, pins, packages, flags, machine.
# A module's programs are always built all together, whichever group asks.
module_key() {
  local module=$1
  {
    recipes | awk -F'|' -v m="$module" '$2 == m'
    uname -m
    cd "$here/modules/$module"
    find . \( -name go.mod -o -name go.sum -o -name '*.go' \) ! -name '*_test.go' | LC_ALL=C sort | xargs sha256sum
  } | sha256sum | cut -c1-16
}

declare -A keys=()
for module in $(recipes | module_names); do keys[$module]=$(module_key "$module"); done
module_dir() { printf '%s/%s-%s' "$cache" "$1" "${keys[$1]}"; }

build_module() { # MODULE DIR STEP
  local module=$1 dir=$2 step=$3 start=$EPOCHREALTIME partial _ name package flags watcher log
  command -v go >/dev/null || die "Go is needed to build $module the first time (see https://go.dev/dl; go.mod names the version)"
  partial=$(mktemp -d "$cache/partial.XXXXXX")
  log=$cache/$module.log
  : >"$log"
  say "$step building $module ..."
  ( # a line now and then, so that nobody thinks it hangs
    while sleep 30; do say "$step building $module ... $(since "$start") s, $(wc -l <"$log") packages compiled"; done
  ) &
  watcher=$!
  # shellcheck disable=SC2064
  trap "kill $watcher 2>/dev/null || true; rm -rf '$partial'" EXIT
  while IFS='|' read -r _ _ name package flags; do
    (cd "$here/modules/$module" &&
      go build ${REMIT_BUILD_JOBS:+-p "$REMIT_BUILD_JOBS"} -v -trimpath -buildvcs=false -ldflags "-s -w $flags" -o "$partial/$name" "$package") 2>>"$log" ||
      { tail -n 20 "$log" >&2; die "building $name failed, see $log"; }
  done < <(recipes | awk -F'|' -v m="$module" '$2 == m')
  kill "$watcher" 2>/dev/null || true
  wait "$watcher" 2>/dev/null || true
  chmod 755 "$partial"
  mv -T "$partial" "$dir"
  trap - EXIT
  rm -f "$log"
  say "$step built $module in $(since "$start") s"
}

# ---- images: one-layer archives made of our static programs, no registry, no Docker

images_key() {
  { echo "${keys[probe]} ${keys[coredns]}"; sha256sum <"$here/mkimage.py"; sha256sum <"$(command -v busybox)"; declare -f build_images; } |
    sha256sum | cut -c1-16
}
images_dir() { printf '%s/images-%s' "$cache" "$(images_key)"; }

build_images() { # DIR
  local partial applets=() applet busybox
  busybox=$(command -v busybox) || die "busybox (static) is missing: run as root, or apt-get install busybox-static"
  partial=$(mktemp -d "$cache/partial.XXXXXX")
  for applet in $("$busybox" --list); do
    case $applet in busybox | wget | nslookup) ;; *) applets+=(--link "bin/$applet:busybox") ;; esac
  done
  "$here/mkimage.py" "$partial/pause.tar" remit.test/pause:1 --user 65532:65532 --entrypoint '["/bin/busybox","sleep","2147483647"]' "$busybox:bin/busybox"
  "$here/mkimage.py" "$partial/coredns.tar" remit.test/coredns:1 --user 65532:65532 --entrypoint '["/coredns"]' "$(module_dir coredns)/coredns:coredns"
  "$here/mkimage.py" "$partial/probe.tar" remit.test/probe:1 --user 65532:65532 --entrypoint '["/bin/probe"]' --cmd '["sleep"]' --dir tmp:1777 \
    --text 'etc/passwd=root:x:0:0:root:/:/bin/sh
nonroot:x:65532:65532:nonroot:/tmp:/bin/sh
' "$(module_dir probe)/probe:bin/probe" "$busybox:bin/busybox" "${applets[@]}"
  chmod 755 "$partial"
  mv -T "$partial" "$1"
}

# ---- commands

build() {
  local modules=() missing=() module step=0 wanted
  wanted=$(recipes | in_groups "$@")
  mapfile -t modules < <(module_names <<<"$wanted")
  for module in "${modules[@]}"; do [ -d "$(module_dir "$module")" ] || missing+=("$module"); done
  if [ ${#missing[@]} -gt 0 ]; then
    mkdir -p "$cache"
    exec 8>"$cache/lock"
    flock -n 8 || { say "another build is running: waiting for it"; flock 8; }
    [[ " ${missing[*]} " != *" kube "* ]] || say "The first build compiles Kubernetes from source: about 10 minutes on two cores; later ones start at once."
    for module in "${missing[@]}"; do
      step=$((step + 1))
      [ -d "$(module_dir "$module")" ] || build_module "$module" "$(module_dir "$module")" "[$step/${#missing[@]}]" 8>&-
    done
    rm -rf "$cache"/partial.*
    exec 8>&-
  fi
}

images() {
  build node
  [ -d "$(images_dir)" ] && return
  exec 8>"$cache/lock"
  flock 8
  [ -d "$(images_dir)" ] || build_images "$(images_dir)"
  exec 8>&-
}

link() { # DIR GROUP...
  local dir=$1 partial module name program; shift
  build "$@"
  mkdir -p "$(dirname "$dir")"
  partial=$(mktemp -d "$dir.XXXXXX")
  while IFS='|' read -r _ module name _; do
    if [ "$name" = hyper ]; then
      for program in $kube_programs; do ln -s "$(module_dir kube)/hyper" "$partial/$program"; done
    else
      ln -s "$(module_dir "$module")/$name" "$partial/$name"
    fi
  done < <(recipes | in_groups "$@")
  chmod 755 "$partial"
  # keep what other groups put there
  mkdir -p "$dir"
  mv -f "$partial"/* "$dir/"
  rmdir "$partial"
}

check() { # every version in versions.env is the one which its go.mod requires
  local bad=0 line
  while read -r variable module path; do
    [ -f "$here/modules/$module/go.mod" ] || { say "modules/$module/go.mod is missing"; bad=1; continue; }
    line=$(awk -v p="$path" '$1 == p { print $2; exit } $1 == "require" && $2 == p { print $3; exit }' "$here/modules/$module/go.mod")
    [ "$line" = "${!variable}" ] || { say "$variable: versions.env says ${!variable}, modules/$module/go.mod says ${line:-nothing}"; bad=1; }
  done <<C
KUBERNETES kube k8s.io/kubernetes
ETCD etcd go.etcd.io/etcd/server/v3
CONTAINERD containerd github.com/containerd/containerd/v2
CNI_PLUGINS cniplugins github.com/containernetworking/plugins
COREDNS coredns github.com/coredns/coredns
HELM3 helm3 helm.sh/helm/v3
HELM4 helm4 helm.sh/helm/v4
KWOK kwok sigs.k8s.io/kwok
CYCLONUS cyclonus github.com/mattfenwick/cyclonus
C
  # the staging modules, and the engine's client, are of the same release: v1.X.Y and v0.X.Y
  local staging=v0.${KUBERNETES#v1.}
  while read -r line; do
    [ -z "$line" ] || { say "not $staging: $line"; bad=1; }
  done < <(grep -E '^\s*k8s\.io/\S+ => k8s\.io/\S+ v0\.' "$here/modules/kube/go.mod" | grep -v " $staging\$" || true
           grep -E '^\s*k8s\.io/(api|apimachinery|client-go) v' "$here/modules/netpol/go.mod" | grep -v " $staging\b" || true)
  [ $bad = 0 ] && say "versions.env and the go.mod files agree"
  return $bad
}

prune() {
  local keep=" " module dir
  for module in $(recipes | module_names); do keep+="$(module_dir "$module") "; done
  keep+="$(images_dir) "
  for dir in "$cache"/*-*/; do
    [ -d "$dir" ] || continue
    dir=${dir%/} module=${dir##*/}
    [ "${module%-*}" = images ] || [ -n "${keys[${module%-*}]:-}" ] || continue # somebody else's
    [[ $keep == *" $dir "* ]] || { say "removing ${dir##*/}"; rm -rf "$dir"; }
  done
}

# Debian packages which cannot be built here. Only what is missing; only then `apt-get update`.
packages() {
  local missing=() command package
  while read -r command package; do
    command -v "$command" >/dev/null || missing+=("$package")
  done <<P
runc runc
nft nftables
ip iproute2
conntrack conntrack
busybox busybox-static
python3 python3
nsenter util-linux
P
  if command -v busybox >/dev/null && ldd "$(command -v busybox)" >/dev/null 2>&1; then missing+=(busybox-static); fi
  [ ${#missing[@]} -gt 0 ] || return 0
  command -v apt-get >/dev/null || die "please install: ${missing[*]} (this is not a Debian, so it is left to you)"
  [ "$(id -u)" = 0 ] || die "these Debian packages are missing: ${missing[*]}. Run as root, or: apt-get install ${missing[*]}"
  say "installing ${missing[*]}"
  { apt-get -q update && DEBIAN_FRONTEND=noninteractive apt-get -qy install --no-install-recommends "${missing[@]}"; } >&2
}

case ${1:-} in
  link) shift; link "$@" ;;
  check) check ;;
  prune) prune ;;
  packages) packages ;;
  images) images >&2; images_dir ;;
  *) build "$@" ;;
esac
