#!/usr/bin/env bash
# curl.sh BASE [--host NAME] [--other URL] [--http 1|2]: checks with curl. Trust and proxies come from the environment alone.
set -uo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/shell.sh"

version=(--http1.1)
if [ "$http" = 2 ]; then
  version=(--http2)
  [[ $base == https:* ]] || version=(--http2-prior-knowledge)
fi
size=$((4 << 20))
python3 -c "import sys; sys.stdout.buffer.write((bytes(range(251)) * 16711)[:$size])" >"$scratch/pattern"
sum=$(sha256sum <"$scratch/pattern" | cut -d' ' -f1)

# ask PATH [ARG...]: the body is in $scratch/body; prints status, version and type
ask() {
  local path=$1
  shift
  curl -sS --max-time 30 "${version[@]}" -o "$scratch/body" -w '%{http_code} HTTP/%{http_version} %{content_type}\n' "$@" "$base$path"
}
fine="200 HTTP/$http*"
[ "$http" = 2 ] || fine="200 HTTP/1.1*"

# seen PATH NAME=VALUE... [-- ARG...]: an echo, of which jq finds these
seen() {
  local path=$1 said pair
  local -a wanted=()
  shift
  while [ $# -gt 0 ] && [ "$1" != -- ]; do wanted+=("$1"); shift; done
  [ $# -eq 0 ] || shift
  said=$(ask "$path" "$@") || return 1
  like "answer" "$said" "$fine" || return 1
  for pair in "${wanted[@]}"; do
    like "${pair%%=*}" "$(jq -r "${pair%%=*}" "$scratch/body")" "${pair#*=}" || return 1
  done
}

get() {
  seen '/echo/a%20b/c?x=1&y=%C3%A9' '.path=/echo/a%20b/c[?]x=1&y=%C3%A9' ".host=$host" .method=GET '.headers["x-remit-test"]=one, two; three="four"' '.headers.cookie=a=1; b=2' \
    -- -H 'X-Remit-Test: one, two; three="four"' -b 'a=1; b=2'
}
head_() {
  like answer "$(ask /echo/head -I -D "$scratch/head")" "$fine" && like method "$(tr -d '\r' <"$scratch/head" | grep -i '^x-method')" '*: HEAD' &&
    like cookies "$(grep -ic '^set-cookie:' "$scratch/head")" 2
}
post() { seen /echo/post '.body={"q": "ü"}' '.headers["content-type"]=application/json' -- -H 'Content-Type: application/json' --data-binary '{"q": "ü"}'; }
methods() {
  local method
  for method in PUT PATCH DELETE OPTIONS; do seen /echo/methods ".method=$method" -- -X "$method" || return 1; done
}
download() { like answer "$(ask "/bytes/$size")" "$fine" && cmp "$scratch/body" "$scratch/pattern"; }
# More than a MiB: with HTTP/1.1, curl waits for 100 Continue.
upload() { seen /upload ".bytes=$size" ".sha256=$sum" ".length=$size" -- -X POST -H 'Expect: 100-continue' -H 'Content-Type: application/octet-stream' --data-binary "@$scratch/pattern"; }
upload_stream() { seen /upload ".bytes=$size" ".sha256=$sum" .length=-1 -- -X POST -T - <"$scratch/pattern"; }
chunked() { like answer "$(ask '/chunked?n=16')" "$fine" && like lines "$(wc -l <"$scratch/body")" 16; }
events() {
  local line times=()
  while IFS= read -r line; do
    [[ $line != data:* ]] || times+=("${EPOCHREALTIME/[.,]/}")
  done < <(curl -sSN --max-time 30 "${version[@]}" "$base/events?n=4&every=200")
  like events "${#times[@]}" 4 || return 1
  [ $((times[3] - times[0])) -gt 400000 ] || { echo "they came all at once"; return 1; }
}
gzip_() { like answer "$(ask /gzip --compressed)" "$fine" && like lines "$(grep -cx zipped "$scratch/body")" 1000; }
redirect() { seen '/redirect?to=/echo/there' .path=/echo/there -- -L; }
redirect_away() { ask "/redirect?to=$other" -L >/dev/null && like host "$(jq -r .host "$scratch/body")" "$(host_of "$other")"; }
parallel() {
  local i
  for i in {1..20}; do printf 'url = "%s/echo/parallel/%s"\noutput = "%s/parallel.%s"\n' "$base" "$i" "$scratch" "$i"; done >"$scratch/config"
  curl -sS --max-time 30 "${version[@]}" -Z -K "$scratch/config" || return 1
  for i in {1..20}; do like path "$(jq -r .path "$scratch/parallel.$i")" "/echo/parallel/$i" || return 1; done
}
denied() { like answer "$(ask /undeclared)" '403 *application/problem+json*' && like reason "$(jq -r .reason "$scratch/body")" path_not_declared; }

check get get
check head head_
check post post
check methods methods
check download download
check upload upload
check upload-stream upload_stream
check chunked chunked
check events events
check gzip gzip_
# Debian 12's curl (7.88) cannot use a plain connection of HTTP/2 for a second request.
once=$([ "$http" = 2 ] && [[ $base == http:* ]] && [[ $(curl --version) == 'curl 7.88.'* ]] && echo once)
[ -n "$once" ] || check redirect redirect
[ -z "$other" ] || check redirect-away redirect_away
[ -n "$once" ] || check parallel parallel
check denied denied
exit "$failed"
