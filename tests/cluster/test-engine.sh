#!/usr/bin/env bash
# Checks the NetworkPolicy engine of the test cluster on the running cluster (it is brought up if need be), so that
# what the other tests say about policies rests on more than our own reading of them. Needs root. Not part of `make test`.
#
#   test-engine.sh               all of it
#   test-engine.sh first-act     30 new pods whose policy already exists: nothing of their first act may arrive;
#                                30 without a policy: all of it must (else the first figure would mean nothing)
#   test-engine.sh reuse         a new pod gets the address of a deleted one, but not its freedom
#   test-engine.sh flush         without its table nothing is enforced, with it everything again
#   test-engine.sh cyclonus      the upstream cases of an independent suite, TCP and UDP, every pod to every pod
#
# Exit 1 if a single connection went otherwise than expected, or if a case was not reached within
# TEST_ENGINE_SECONDS (of the suite alone). What it does not cover: SCTP, and IPv6 only outside the suite.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

suite_seconds=${TEST_ENGINE_SECONDS:-2400}
export KUBECONFIG=$checkout/target/cluster/kubeconfig
out=$checkout/target/test-engine
cluster=$here/cluster.sh
kubectl() { "$checkout/target/cluster/bin/kubectl" "$@"; }
failures=0
expect() { # WHAT GOT WANTED
  if [ "$2" = "$3" ]; then say "ok    $1: $2"; else say "WRONG $1: $2, expected $3"; failures=$((failures + 1)); fi
}

# ---- the independent suite and its image: built once, on demand only, kept where build.sh keeps the rest
suite_dir() {
  {
    uname -m
    cd "$here/modules/cyclonus"
    find . -type f | LC_ALL=C sort | xargs sha256sum
    sha256sum <"$here/mkimage.py"
  } | sha256sum | cut -c1-16 | sed "s|^|$cache/cyclonus-|"
}
build_suite() { # DIR
  grep -q "k8s.io/kubernetes $KUBERNETES " "$here/modules/cyclonus/agnhost/go.mod" || die "modules/cyclonus/agnhost/go.mod is not at $KUBERNETES"
  [ ! -d "$1" ] || return 0
  local partial
  mkdir -p "$cache"
  (
    flock 8
    [ ! -d "$1" ] || exit 0
    say "building the suite (a few minutes the first time) ..."
    partial=$(mktemp -d "$cache/partial.XXXXXX")
    trap 'rm -rf "$partial"' EXIT
    export CGO_ENABLED=0 GOWORK=off
    flags=(${REMIT_BUILD_JOBS:+-p "$REMIT_BUILD_JOBS"} -trimpath -buildvcs=false -ldflags "-s -w")
    (cd "$here/modules/cyclonus" && go build "${flags[@]}" -o "$partial/cyclonus" github.com/mattfenwick/cyclonus/cmd/cyclonus)
    (cd "$here/modules/cyclonus/agnhost" && go build "${flags[@]}" -o "$partial/agnhost" k8s.io/kubernetes/test/images/agnhost)
    # the name under which the suite asks for it, apart from the registry, which can be chosen
    "$here/mkimage.py" "$partial/agnhost.tar" remit.test/e2e-test-images/agnhost:2.43 --entrypoint '["/agnhost"]' "$partial/agnhost:agnhost"
    rm "$partial/agnhost"
    chmod 755 "$partial"
    mv -T "$partial" "$1"
    trap - EXIT
  ) 8>"$cache/lock"
}

# Reads the suite's output; prints a line per case as it ends, and the totals. Fails unless every case was reached
# and every cell right. The suite repeats a matrix with wrong cells once, and counts the repetition. A slow machine may
# close what should be open for that once; what was open and should have been closed counts as wrong at any try.
report() { # EXPECTED-CASES
  local awk=(awk)
  ! awk -W version 2>&1 </dev/null | grep -q ^mawk || awk=(awk -W interactive) # else it reads pipes in large blocks
  "${awk[@]}" -v expected="$1" '
    /^test #[0-9]+: / { n = $2; gsub(/[#:]/, "", n); title = $0; sub(/^test #[0-9]+: /, "", title); titles[n] = title; if (n + 0 > cases) cases = n + 0 }
    /^starting test case #/ { n = $NF; sub(/#/, "", n); current = n; wrong = right = ignored = matrices = again = leaks = late = 0 }
    /running kube probe on try/ && !/on try 1/ { again++ }
    /[0-9]+ wrong, [0-9]+ ignored, [0-9]+ correct/ {
      line = $0; sub(/^Discrepancy found:/, "", line); split(line, f, " ")
      wrong += f[1]; ignored += f[3]; right += f[5]; matrices++ }
    /^(Expected|kube results|Actual)/ { table = /^Expected combined/ ? "expected" : /^kube results/ ? "try" : ""; row = 0 }
    table && /^\| [a-z]+\/[a-z]+ / {
      columns = split($0, cell, "|"); row++
      for (c = 3; c < columns; c++) {
        if (table == "expected") want[row, c] = cell[c]
        else if (c != row + 2) for (i = 1; i <= length(cell[c]); i++) {
          is = substr(cell[c], i, 1); should = substr(want[row, c], i, 1)
          if (is == "." && should == "X") leaks++
          if (is == "X" && should == ".") late++ } } }
    /^finished policy #/ {
      done[current] = 1; reached++; failed = wrong || leaks || !right
      printf "%s case %d: %d matrices, %d right, %d wrong, %d ignored%s: %s\n", failed ? "WRONG" : "ok   ", current, matrices, right, wrong, ignored,
        again ? sprintf(", %d repeated (at some try %d connections open that should be closed, %d closed that should be open)", again, leaks, late) : "", titles[current]
      fflush(); totalM += matrices; totalR += right; totalW += wrong; totalI += ignored; totalA += again; totalL += leaks
      if (failed) bad++ }
    END {
      for (i = 1; i <= cases; i++) if (!(i in done)) { printf "NOT REACHED case %d: %s\n", i, titles[i]; missing++ }
      printf "suite: %d cases, %d passed, %d wrong, %d not reached; %d matrices, %d cells right, %d wrong, %d ignored (a pod to itself), %d matrices repeated, %d connections open at any try that should be closed\n", cases, reached - bad, bad, missing, totalM, totalR, totalW, totalI, totalA, totalL
      exit !(cases == expected && reached == cases && !bad) }'
}

test_cyclonus() {
  local dir expected=13
  dir=$(suite_dir)
  build_suite "$dir"
  "$cluster" load "$dir/agnhost.tar" >/dev/null
  mkdir -p "$out"
  say "running the suite (at most $suite_seconds s), log in ${out#"$checkout"/}/cyclonus.log"
  # By the pods' addresses. By name, a case that denies DNS too spends minutes in the resolver's repetitions; by the
  # Service's address, this version forgets the address of a pod whose labels it changes, and calls ":80" in its place.
  # --exclude sctp stands in the place of the default exclusions, which would leave out the upstream cases
  { timeout "$suite_seconds" "$dir/cyclonus" generate --noisy --include upstream-e2e --exclude sctp --server-protocol TCP,UDP --ignore-loopback \
      --destination-type pod-ip --image-registry remit.test --perturbation-wait-seconds 3 --job-timeout-seconds 3 --pod-creation-timeout-seconds 180 --cleanup-namespaces 2>&1 ||
      echo "suite ended with $?"; } | tee "$out/cyclonus.log" | report $expected || failures=$((failures + 1))
  kubectl delete namespace x y z --ignore-not-found --wait=false >/dev/null 2>&1 || true
}

# ---- our own pods
ns=engine-test
new_namespace() {
  kubectl delete namespace $ns --ignore-not-found >/dev/null
  kubectl create namespace $ns >/dev/null
  until_true 30 kubectl -n $ns get serviceaccount default || die "no default service account"
  kubectl apply -f - >/dev/null <<Y
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: deny, namespace: $ns}
spec: {podSelector: {matchLabels: {role: denied}}, policyTypes: [Ingress, Egress]}
---
apiVersion: v1
kind: Pod
metadata: {name: server, namespace: $ns}
spec:
  terminationGracePeriodSeconds: 0
  containers: [{name: c, image: "remit.test/probe:1", imagePullPolicy: Never, args: [serve, --tcp, "8080", --udp, "8081"]}]
Y
  kubectl -n $ns wait --for=condition=Ready pod/server --timeout=60s >/dev/null
  read -r server4 server6 < <(kubectl -n $ns get pod server -o 'jsonpath={.status.podIPs[*].ip}{"\n"}')
}
# A pod whose first act, and all it ever does, is to call the server: both families, TCP and UDP, three times over
# (what comes before the engine knows the pod is dropped: a datagram is lost for good, TCP tries again after a second).
pod() { # NAME ROLE
  cat <<Y
---
apiVersion: v1
kind: Pod
metadata: {name: "$1", namespace: $ns, labels: {role: "$2"}}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 0
  automountServiceAccountToken: false
  containers:
  - name: c
    image: remit.test/probe:1
    imagePullPolicy: Never
    command: [/bin/sh, -c, 'for i in 1 2 3; do /bin/probe batch --timeout 4s line://$server4:8080 "line://[$server6]:8080" udp://$server4:8081 "udp://[$server6]:8081"; done']
Y
}
all_ended() { [ "$(kubectl -n $ns get pod -l "$1" -o 'jsonpath={range .items[*]}{.status.phase}{"\n"}{end}' | grep -cE 'Succeeded|Failed')" = "$2" ]; }
# arrived PROTOCOL 4|6 SELECTOR: how many of the selected pods reached the server at all
arrived() {
  local counts
  counts=$("$cluster" exec probe get --timeout 3s "http://$server4:8080/counts")
  kubectl -n $ns get pod -l "$3" -o json | python3 -c '
import json, sys
protocol, family, counts = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
callers = {c["from"] for c in counts if c["protocol"] == protocol and c["accepted"]}
addresses = [[a["ip"] for a in p["status"].get("podIPs", []) if (":" in a["ip"]) == (family == "6")] for p in json.load(sys.stdin)["items"]]
assert all(addresses), "a pod without an address: nothing can be said about it"
print(sum(any(a in callers for a in own) for own in addresses))' "$1" "$2" "$counts"
}

at_once() {
  local i
  for i in $(seq 30); do kubectl -n $ns logs free-$i | head -n 1; done | python3 -c '
import json, sys
print(sum(c["ok"] and c["ms"] < 1000 for line in sys.stdin for c in json.loads(line).values()))'
}

test_first_act() {
  local n=30 i role protocol family
  new_namespace
  for role in denied free; do
    for i in $(seq $n); do pod "$role-$i" $role; done | kubectl apply -f - >/dev/null
    until_true 240 all_ended role=$role $n || die "the pods did not end"
  done
  for protocol in tcp udp; do
    for family in 4 6; do
      expect "first act, no policy (control), $protocol over IPv$family, pods of $n that arrived" "$(arrived $protocol $family role=free)" $n
      expect "first act, denied, $protocol over IPv$family, pods of $n that arrived" "$(arrived $protocol $family role=denied)" 0
    done
  done
  say "info  first act, no policy: $(at_once) of $((4 * n)) calls were answered within a second at the first attempt"
  kubectl delete namespace $ns --wait=false >/dev/null
}

# The address allocator goes round, so an address comes back after a whole turn: it is turned back by hand.
test_reuse() {
  local old4 old6 new address i
  new_namespace
  pod old free | kubectl apply -f - >/dev/null
  until_true 120 all_ended role=free 1 || die "the pod did not end"
  read -r old4 old6 < <(kubectl -n $ns get pod old -o 'jsonpath={.status.podIPs[*].ip}{"\n"}')
  expect "reuse, the first owner (control), tcp over IPv4" "$(arrived tcp 4 role=free)" 1
  expect "reuse, the first owner (control), tcp over IPv6" "$(arrived tcp 6 role=free)" 1
  kubectl -n $ns delete pod old server >/dev/null
  new_namespace
  i=0
  for address in "$old4" "$old6"; do
    python3 -c 'import ipaddress, sys; print(ipaddress.ip_address(sys.argv[1]) - 1, end="")' "$address" |
      "$cluster" exec sh -c "cat >/run/cni-ipam/remit/last_reserved_ip.$i"
    i=$((i + 1))
  done
  pod new denied | kubectl apply -f - >/dev/null
  until_true 120 all_ended role=denied 1 || die "the pod did not end"
  new=$(kubectl -n $ns get pod new -o 'jsonpath={.status.podIPs[*].ip}')
  expect "reuse, the successor's addresses" "$new" "$old4 $old6"
  for i in "tcp 4" "tcp 6" "udp 4" "udp 6"; do
    # shellcheck disable=SC2086
    expect "reuse, the successor is denied, $i" "$(arrived $i role=denied)" 0
  done
  kubectl delete namespace $ns --wait=false >/dev/null
}

test_flush() {
  new_namespace
  kubectl -n $ns run caller --image=remit.test/probe:1 --image-pull-policy=Never --labels=role=denied --restart=Never >/dev/null
  kubectl -n $ns wait --for=condition=Ready pod/caller --timeout=60s >/dev/null
  call() { if kubectl -n $ns exec caller -- /bin/probe line --timeout 1s "$server4:8080" "[$server6]:8080" >/dev/null 2>&1; then echo open; else echo closed; fi; }
  expect "flush, before" "$(call)" closed
  "$cluster" exec netpol flush
  expect "flush, without the table (control)" "$(call)" open
  # a change of the world must not bring it back
  kubectl -n $ns run other --image=remit.test/probe:1 --image-pull-policy=Never --restart=Never >/dev/null
  kubectl -n $ns wait --for=condition=Ready pod/other --timeout=60s >/dev/null
  expect "flush, after a new pod came" "$(call)" open
  "$cluster" exec netpol resume
  sleep 0.5
  expect "flush, resumed" "$(call)" closed
  "$cluster" service engine stop KILL
  expect "engine killed: its table stays" "$(call)" closed
  "$cluster" service engine start
  sleep 2
  expect "engine started again" "$(call)" closed
  kubectl delete namespace $ns --wait=false >/dev/null
}

"$cluster" up
mkdir -p "$out"
case ${1:-all} in
  first-act) test_first_act ;;
  reuse) test_reuse ;;
  flush) test_flush ;;
  cyclonus) test_cyclonus ;;
  all) test_first_act; test_reuse; test_flush; test_cyclonus ;;
  *) sed -n '2,15s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
[ $failures = 0 ] || die "test-engine: $failures failed"
say "test-engine: all as expected"
