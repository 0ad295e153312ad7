#!/usr/bin/env bash
# run.sh [WAY...]: every client in these ways (default: all), in network namespaces; at the end a table of clients and ways. Needs root.
#
#   direct     no guard: the clients and the server are right
#   tcp        a Service declared TCP, a host declared TLS: bytes pass, nothing in them is judged
#   redirect   a Service and a host declared HTTP, and a host declared TLS
#   base-url   http://127.0.0.1:15474/<source>: a Service declared HTTP, a host declared HTTPS
#   proxy      the guard as on a laptop, as forward proxy, for clients that resolve nothing
#   inspect    a host declared HTTPS, whose TLS the guard ends; clients trust it by the variables that inspected pods are given, and no others
#
#   GUARD=PATH       instead of the debug build; GUARD=stand-in: base-url and proxy without the guard, to prove the clients
#   GUARD_ARGS=ARGS  more arguments for `remit-guard run`. WORK stands for the run's directory; WORK/tls and WORK/ca belong to the guard's user
#   ONLY=REGEX       only clients of these names
#
# What each client said, what arrived at the server, and the guard's log stay in target/clients/results.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

[ "$(id -u)" = 0 ] || die "network namespaces need root"
ways=("$@")
if [ $# = 0 ]; then
  ways=(direct tcp redirect base-url proxy inspect)
  [ "${GUARD:-}" != stand-in ] || ways=(direct base-url proxy)
fi
for way in "${ways[@]}"; do
  case $way in
    direct | base-url | proxy) ;;
    tcp | redirect | inspect) [ "${GUARD:-}" != stand-in ] || die "there is no stand-in for the way $way" ;;
    *) die "no way $way; $0 says which there are" ;;
  esac
done

"$here/setup.sh"
built=$checkout/target/clients
guard=${GUARD:-}
if [ -z "$guard" ] && [ "${ways[*]}" != direct ]; then
  (cd "$checkout" && cargo build --quiet --locked --no-default-features --features guard --bin remit-guard)
  guard=$checkout/target/$(rustc --print host-tuple)/debug/remit-guard
fi

# ---- the world: as in tests/it/pod, but for what it serves

id=$(printf '%x' $$)
pod=rmtcp$id
world=rmtcw$id
ORDERS=10.96.7.7 DNS=10.96.0.10 FILES=203.0.113.20 HELP=203.0.113.10 HELP6=2001:db8:ffff::10 EVIL=203.0.113.66
GATEWAY=10.244.0.1 GATEWAY6=2001:db8:10:244::1 POD=10.244.0.5 POD6=2001:db8:10:244::5
# Of the range for guards (src/policy/pod.rs).
uid=2000100000 gid=2000100001

work=$(mktemp -d)
chmod 755 "$work"
results=$built/results
rm -rf "$results"
mkdir -p "$results" "$work/home"
started=() # our processes

end() {
  local status=$? pid
  for pid in "${started[@]}"; do kill "$pid" 2>/dev/null || true; done
  wait 2>/dev/null || true
  ip netns del "$pod" 2>/dev/null || true
  ip netns del "$world" 2>/dev/null || true
  rm -rf "/etc/netns/$pod" "$work"
  exit "$status"
}
trap end EXIT
trap 'exit 130' INT TERM

# in_pod COMMAND..., in_world COMMAND...: with the resolv.conf of the pod, and nothing of our environment
bare=(env -i "PATH=$PATH" "HOME=$work/home" LANG=C.UTF-8 PYTHONDONTWRITEBYTECODE=1)
in_pod() { ip netns exec "$pod" "${bare[@]}" "$@"; }
in_world() { ip netns exec "$world" "${bare[@]}" "$@"; }

# background LOG COMMAND...: its id is in $! and in `started`
background() {
  local log=$1
  shift
  # Without the descriptors of make; in the place of the subshell, so that the id is its own.
  exec_in_place "$@" >>"$log" 2>&1 </dev/null &
  started+=($!)
}
exec_in_place() {
  local namespace=$1
  shift
  exec ip netns exec "$namespace" "${bare[@]}" "$@"
}

resolver() { # ADDRESS: a file of its own each time, so that processes of before keep theirs
  printf 'nameserver %s\nsearch support.svc.cluster.local svc.cluster.local cluster.local\noptions timeout:2 attempts:2\n' "$1" >"/etc/netns/$pod/new"
  mv "/etc/netns/$pod/new" "/etc/netns/$pod/resolv.conf"
}

make_world() {
  local address device="p$id" peer="w$id"
  mkdir -p "/etc/netns/$pod"
  resolver "$DNS"
  for namespace in "$pod" "$world"; do
    ip netns add "$namespace"
    ip -n "$namespace" link set lo up
  done
  ip link add "$device" netns "$pod" type veth peer name "$peer" netns "$world"
  ip -n "$pod" addr add "$POD/24" dev "$device"
  ip -n "$pod" addr add "$POD6/64" dev "$device" nodad
  ip -n "$world" addr add "$GATEWAY/24" dev "$peer"
  ip -n "$world" addr add "$GATEWAY6/64" dev "$peer" nodad
  ip -n "$pod" link set "$device" up
  ip -n "$world" link set "$peer" up
  ip -n "$pod" route add default via "$GATEWAY"
  ip -n "$pod" -6 route add default via "$GATEWAY6"
  for address in "$ORDERS" "$DNS" "$FILES" "$HELP" "$EVIL"; do ip -n "$world" addr add "$address/32" dev lo; done
  ip -n "$world" addr add "$HELP6/128" dev lo nodad

  "$built/go/server" pki "$work/pki" help.example.com evil.example.com
  trust_store "$work/pki"
  repository
  background "$results/server.err" "$world" "$built/go/server" -pki "$work/pki" -git "$work/git" -log "$results/arrived.jsonl" \
    -dns "$DNS:53" -plain "$ORDERS:80" -plain "$FILES:80" -plain "$EVIL:80" -tls "$HELP:443" -tls "[$HELP6]:443" -tls "$EVIL:443" \
    -name "orders.shop.svc.cluster.local=$ORDERS" -name "files.example.com=$FILES" -name "evil.example.com=$EVIL" -name "help.example.com=$HELP,$HELP6"
  until_true 10 in_world curl -s "http://$FILES/" || die "the test server does not start: $(cat "$results/server.err")"
}

repository() {
  local i
  git init -q -b main "$work/source"
  for i in {1..30}; do
    echo "version $i" >"$work/source/README"
    git -C "$work/source" add README
    git -C "$work/source" -c user.name=test -c user.email=test@example.com commit -qm "version $i"
  done
  git clone -q --bare "$work/source" "$work/git/demo.git"
}

# ---- trust: what the environment of an app says, and nothing else

trust_store() { # DIRECTORY with ca.pem: adds the same for Java
  rm -f "$1/trust.jks"
  keytool -importcert -noprompt -alias remit -file "$1/ca.pem" -keystore "$1/trust.jks" -storetype JKS -storepass changeit 2>/dev/null
}

trusting() { # DIRECTORY
  local variable
  for variable in SSL_CERT_FILE CURL_CA_BUNDLE REQUESTS_CA_BUNDLE GIT_SSL_CAINFO NODE_EXTRA_CA_CERTS GRPC_DEFAULT_SSL_ROOTS_FILE_PATH; do
    environment+=("$variable=$1/ca.pem")
  done
  java+=" -Djavax.net.ssl.trustStore=$1/trust.jks -Djavax.net.ssl.trustStorePassword=changeit"
}

# As an inspected pod's app is told (tests/chart/inspecting-pod.json, written by `make generate`), for a trust store in this directory.
injected() { # DIRECTORY
  local told
  told=$(jq -er --arg at "$1" '.spec.containers[0].env[] | "\(.name)=\(.value | gsub("/var/run/remit/trust"; $at))"' "$checkout/tests/chart/inspecting-pod.json") ||
    { say "no variables in tests/chart/inspecting-pod.json"; return 1; }
  mapfile -t environment <<<"$told"
}

through_proxy() { # HOST PORT
  environment+=("http_proxy=http://$1:$2" "https_proxy=http://$1:$2" "HTTPS_PROXY=http://$1:$2")
  java+=" -Dhttp.proxyHost=$1 -Dhttp.proxyPort=$2 -Dhttps.proxyHost=$1 -Dhttps.proxyPort=$2"
}

# ---- the guard

# policy DESTINATION...: as the operator would write it
policy() {
  local destinations format=1
  destinations=$(printf '%s\n' "$@" | jq -s .)
  [[ $destinations != *'"http"'* ]] || format=2
  jq -n --argjson destinations "$destinations" --argjson format "$format" --rawfile ca "$work/pki/ca.pem" --arg dns "$DNS:53" '
    {
      format: $format, workload: {namespace: "support", name: "bot", uid: "u"}, generation: 1, digest: "one", mode: "Enforce", suspended: false,
      network: ({
        domain: "cluster.local", dns: [$dns],
        services: ["10.96.0.0/16", "10.244.0.0/16", "2001:db8:10:244::/64"], own: ["10.96.0.0/16", "10.244.0.0/16", "2001:db8:10:244::/64"],
      } + if $format == 2 then {roots: {public: false, certificates: [$ca]}} else {} end),
      destinations: $destinations,
    }'
}
rules() { # SCHEME INSPECT: all that the clients ask for but /undeclared and the method Undeclared
  jq -nc --arg scheme "$1" --arg inspect "$2" '
    def prefix: {type: "PathPrefix", value: .};
    def exact: {type: "Exact", value: .};
    {http: {scheme: $scheme, inspect: $inspect, access: "ReadWrite", rules: [
      {paths: ((["/echo", "/upload", "/bytes", "/chunked", "/events", "/gzip", "/redirect", "/git"] | map(prefix)) + ["/" | exact])},
      {methods: ["GET"], paths: ["/ws" | exact], upgrades: ["websocket"]},
      {methods: ["POST"], paths: ["Unary", "ServerStream", "ClientStream", "Bidi", "Fail"] | map("/remit.test.Echo/" + . | exact)}
    ]}}'
}
orders() { jq -nc --argjson http "${1:-{\}}" '{source: "orders", target: ({type: "Service", name: "orders", namespace: "shop", ports: [80]} + $http)}'; }
host() { jq -nc --arg source "$1" --arg name "$2" --argjson port "$3" --argjson http "${4:-{\}}" '{source: $source, target: ({type: "Host", name: $name, port: $port} + $http)}'; }

# guarded in-pod|laptop DESTINATION...: a guard that enforces this
guarded() {
  local how=$1 arguments=() log=$results/$way.guard.log
  shift
  policy "$@" >"$work/policy.json" || return 1
  cp "$work/policy.json" "$results/$way.policy.json"
  printf 'nameserver %s\nsearch support.svc.cluster.local svc.cluster.local cluster.local\n' "$DNS" >"$work/resolv.conf"
  if [ "$guard" = stand-in ]; then
    background "$log" "$pod" "$built/go/standin" -trust "$work/pki/ca.pem" \
      -source orders=http://orders.shop.svc.cluster.local -source files=http://files.example.com -source help-centre=https://help.example.com
  else
    if [ "$how" = laptop ]; then
      arguments=(--listen 127.0.0.1:15474)
    else
      in_pod "$guard" redirect --uid "$uid" --gid "$gid" >>"$log" 2>&1 ||
        { say "the redirect fails: $(tail -n 3 "$log")"; return 1; }
    fi
    local more=()
    read -ra more <<<"${GUARD_ARGS:-}"
    arguments+=("${more[@]//WORK/$work}")
    rm -rf "$work/tls" "$work/ca"
    install -d -o "$uid" -g "$gid" "$work/tls" "$work/ca"
    [ "$way" != inspect ] || arguments+=(--trust-store "$work/tls" --ca "$work/ca")
    background "$log" "$pod" setpriv --clear-groups --regid "$gid" --reuid "$uid" \
      "$guard" run --unsigned --policy "$work/policy.json" --resolv-conf "$work/resolv.conf" --drain-seconds 1 "${arguments[@]}"
  fi
  guard_pid=$!
  until_true 15 ready "$how" || { say "the guard is not ready: $(tail -n 5 "$log")"; return 1; }
}
ready() {
  if [ "$1" = laptop ] || [ "$guard" = stand-in ]; then
    in_pod curl -s -o /dev/null http://127.0.0.1:15474/
  else
    in_world curl -sf "http://$POD:15470/readyz"
  fi
}
unguarded() {
  [ -z "$guard_pid" ] || kill "$guard_pid" 2>/dev/null || true
  [ -z "$guard_pid" ] || wait "$guard_pid" 2>/dev/null || true
  guard_pid=''
  ip netns exec "$pod" nft flush ruleset
}

# ---- the clients

# name | command | arguments | ways in which it cannot be. PYTHON and GO stand for their directories.
clients() {
  cat <<C
curl h1|$here/curl.sh|--http 1|
curl h2|$here/curl.sh|--http 2|proxy/http
git|$here/git.sh||
requests|PYTHON with_requests.py|--http 1|
httpx h1|PYTHON with_httpx.py|--http 1|
httpx h2|PYTHON with_httpx.py|--http 2|proxy/http
websockets|PYTHON with_websockets.py||proxy/http
node fetch|node $here/node/fetch.mjs||proxy/http proxy/tunnel
java h1|java $here/java/Client.java|--http 1|
java|java $here/java/Client.java|--http 2|
go h1|GO/nethttp|--http 1|
go h2|GO/nethttp|--http 2|proxy/http
go websocket|GO/websocket||
grpc go|GO/grpc||base-url/service base-url/https proxy/http
grpc python|PYTHON with_grpc.py||base-url/service base-url/https proxy/http
h2spec|h2spec||direct/https tcp/service tcp/tunnel redirect/host redirect/tunnel proxy/http proxy/tunnel
C
}

# one NAME COMMAND ARGUMENTS: writes its result
one() {
  local name=$1 command=$2 file=$results/$target/${1// /-} status=0
  local -a words options
  read -ra words <<<"${command//PYTHON /$built/python/bin/python $here/python/}"
  words[0]=${words[0]//GO/$built/go}
  read -ra options <<<"$3"
  case $name in
    grpc* | git | websockets | 'go websocket') words+=("$base" --host "$seen") ;;
    h2spec) h2spec_words ;;
    *) words+=("$base" --host "$seen" --other "$other") ;;
  esac
  [ -z "$java" ] || environment+=("JAVA_TOOL_OPTIONS=$java")
  timeout -k 5 120 ip netns exec "$pod" "${bare[@]}" "${environment[@]}" "${words[@]}" "${options[@]}" >"$file.txt" 2>&1 || status=$?
  if [ "$status" = 0 ] && ! grep -q '^FAIL ' "$file.txt" && grep -qE '^(ok |h2spec: )' "$file.txt"; then
    echo ok >"$file.result"
    say "ok   $target: $name ($(grep -c '^ok ' "$file.txt"))"
  else
    echo FAIL >"$file.result"
    say "FAIL $target: $name: ended with $status"
    grep -E '^FAIL ' "$file.txt" >&2 || tail -n 5 "$file.txt" >&2
  fi
}
h2spec_words() {
  local rest=${base#*://} port=80 path tls=()
  path=/${rest#*/}
  [[ $rest == */* ]] || path=
  rest=${rest%%/*}
  [[ $base != https:* ]] || { port=443; tls=(--tls); }
  [[ $rest != *:* ]] || port=${rest##*:}
  words=("$here/h2spec.sh" "${rest%%:*}" "$port" "${tls[@]}" --path "$path/")
  # The server is Go's, which is known not to pass these; the stand-in is as well.
  if [ "$way" = direct ] || [ "$guard" = stand-in ]; then
    words+=(--except http2/4.2/3 --except http2/6.5.3/1 --except http2/8.1.2.2/1 --except http2/8.1.2.2/2)
  fi
}

# clients_to TARGET BASE HOST OTHER [judged]: all clients, twice as many at a time as there are processors, for they wait most of the time
clients_to() {
  local name command arguments not before ended i running=()
  target=$way/$1 base=$2 seen=$3 other=$4
  targets+=("$target")
  mkdir -p "$results/$target"
  before=$(wc -l <"$results/arrived.jsonl")
  while IFS='|' read -r name command arguments not; do
    [[ $name =~ ${ONLY:-.} ]] || continue
    if [[ " $not " == *" $target "* ]]; then
      echo - >"$results/$target/${name// /-}.result"
      continue
    fi
    one "$name" "$command" "$arguments" </dev/null &
    running+=($!)
    if [ ${#running[@]} -ge $((2 * $(nproc))) ]; then
      wait -n -p ended "${running[@]}"
      for i in "${!running[@]}"; do [ "${running[i]}" != "$ended" ] || unset "running[i]"; done
    fi
  done < <(clients)
  [ ${#running[@]} = 0 ] || wait "${running[@]}"
  tail -n "+$((before + 1))" "$results/arrived.jsonl" >"$results/$target/arrived.jsonl"
  arrivals "${5:-}"
}

# What arrived is the last word: the clients have only seen answers.
arrivals() { # judged: nothing that is not declared
  local file=$results/$target/arrived.jsonl wrong
  echo ok >"$results/$target/arrivals.result"
  [ "$way" != direct ] || return 0
  in_pod timeout 10 curl -s -o /dev/null --max-time 5 "${outside[@]}" http://evil.example.com/echo/evil || true
  in_pod timeout 10 curl -sk -o /dev/null --max-time 5 "${outside[@]}" https://evil.example.com/echo/evil || true
  [ "$guard" != stand-in ] || return 0
  wrong=$(jq -r 'select((.host // .sni // "" | startswith("evil")) or (.path // "" | startswith("/echo/evil"))) | "undeclared host: \(.path // .sni)"' "$results/arrived.jsonl" | head -n 3)
  if [ "$1" = judged ]; then
    wrong+=$'\n'$(jq -r 'select(.path // "" | test("ndeclared")) | "undeclared path: \(.method) \(.path)"' "$file" | head -n 3)
    # Hop-by-hop fields end at the guard; only a declared WebSocket is an upgrade. Behind a body that may be passed over nothing follows.
    wrong+=$'\n'$(jq -r '
      select(.headers) | .path as $path | (.method | IN("POST", "PUT", "PATCH")) as $with_body | .headers | to_entries[]
      | (.value | tostring | test("close")) as $close | .key
      | select(test("^(Proxy-|Http2-Settings$|Keep-Alive$)"; "i")
          or ($path != "/ws" and test("^(Connection|Upgrade)$"; "i") and ($with_body or ($close | not)))) | "\(.) at \($path)"
    ' "$file" | head -n 3)
  fi
  wrong=$(grep . <<<"$wrong" || true)
  [ -n "$wrong" ] || return 0
  echo FAIL >"$results/$target/arrivals.result"
  say "FAIL $target: arrivals: $wrong"
}

orders_url=http://orders.shop.svc.cluster.local files_url=http://files.example.com help_url=https://help.example.com

run_way() {
  local own=http://127.0.0.1:15474
  environment=() java='' guard_pid='' outside=()
  resolver "$DNS"
  case $way in
    direct)
      trusting "$work/pki"
      clients_to http "$orders_url" orders.shop.svc.cluster.local "$help_url/echo/other"
      clients_to https "$help_url" help.example.com "$orders_url/echo/other"
      ;;
    tcp)
      trusting "$work/pki"
      guarded in-pod "$(orders)" "$(host help-centre help.example.com 443)" || return 1
      clients_to service "$orders_url" orders.shop.svc.cluster.local "$help_url/echo/other"
      clients_to tunnel "$help_url" help.example.com "$orders_url/echo/other"
      ;;
    redirect)
      trusting "$work/pki"
      guarded in-pod "$(orders "$(rules Http BaseUrl)")" "$(host files files.example.com 80 "$(rules Http BaseUrl)")" "$(host help-centre help.example.com 443)" || return 1
      clients_to service "$orders_url" orders.shop.svc.cluster.local "$files_url/echo/other" judged
      clients_to host "$files_url" files.example.com "$orders_url/echo/other" judged
      clients_to tunnel "$help_url" help.example.com "$orders_url/echo/other"
      ;;
    base-url)
      # They trust nobody: the guard does.
      guarded in-pod "$(orders "$(rules Http BaseUrl)")" "$(host files files.example.com 80 "$(rules Http BaseUrl)")" \
        "$(host help-centre help.example.com 443 "$(rules Https BaseUrl)")" || return 1
      clients_to service "$own/orders" orders.shop.svc "$files_url/echo/other" judged
      clients_to https "$own/help-centre" help.example.com "$files_url/echo/other" judged
      ;;
    proxy)
      trusting "$work/pki"
      through_proxy 127.0.0.1 15474
      outside=(--proxy "$own")
      guarded laptop "$(host files files.example.com 80 "$(rules Http BaseUrl)")" "$(host help-centre help.example.com 443)" || return 1
      # Whoever reaches a host has asked the proxy.
      resolver 127.0.0.2
      clients_to http "$files_url" files.example.com "$files_url/echo/other" judged
      clients_to tunnel "$help_url" help.example.com "$files_url/echo/other"
      ;;
    inspect)
      guarded in-pod "$(orders "$(rules Http BaseUrl)")" "$(host help-centre help.example.com 443 "$(rules Https Intercept)")" || return 1
      injected "$work/tls" || return 1
      clients_to https "$help_url" help.example.com "$orders_url/echo/other" judged
      ;;
  esac
}

table() {
  local name target cells
  printf '%-14s' client
  printf ' %-17s' "${targets[@]}"
  echo
  { clients | cut -d'|' -f1; echo arrivals; } | while IFS= read -r name; do
    cells=''
    for target in "${targets[@]}"; do
      cells+=$(printf ' %-17s' "$(cat "$results/$target/${name// /-}.result" 2>/dev/null || true)")' '
      cells=${cells% }
    done
    [ -z "${cells// /}" ] || printf '%-14s%s\n' "$name" "$cells"
  done
}

make_world
targets=()
for way in "${ways[@]}"; do
  say "==> $way"
  # One way that cannot begin does not keep the others from being run.
  if ! run_way; then
    targets+=("$way")
    mkdir -p "$results/$way"
    clients | cut -d'|' -f1 | while IFS= read -r name; do
      [[ ! $name =~ ${ONLY:-.} ]] || echo FAIL >"$results/$way/${name// /-}.result"
    done
  fi
  unguarded
done
echo
table | tee "$results/table.txt"

# A client without a result has not run: that is a failure, as FAIL is.
ok=0 wrong=()
while IFS= read -r name; do
  [[ $name = arrivals || $name =~ ${ONLY:-.} ]] || continue
  for target in "${targets[@]}"; do
    case $(cat "$results/$target/${name// /-}.result" 2>/dev/null || true) in
      ok) ok=$((ok + 1)) ;;
      -) ;;
      *) wrong+=("$target: $name") ;;
    esac
  done
done < <(clients | cut -d'|' -f1; echo arrivals)
if [ ${#wrong[@]} -gt 0 ] || [ "$ok" = 0 ]; then
  say "not ok: $(printf '%s; ' "${wrong[@]:-nothing ran}")"
  die "$ok results are ok, ${#wrong[@]} are not; what was said is in $results"
fi
say "clients: $ok results ok in ${#targets[@]} targets, none failed and none missing ($SECONDS s)" 2>&1 | tee "$results/summary.txt"
