# shellcheck shell=bash
# How the demo tells its story and keeps count of what it promised. Sourced by demo.sh and demo-down.sh.

width=${COLUMNS:-0}
[ "$width" -gt 0 ] || width=$(tput cols 2>/dev/null || echo 92)
[ "$width" -le 100 ] || width=100
[ "$width" -ge 80 ] || width=80
bold='' green='' red='' plain=''
if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then
  bold=$'\e[1m' green=$'\e[32m' red=$'\e[31m' plain=$'\e[0m'
fi

# Everything but a promise ends with an empty line; promises stand together.
gap=
close_promises() { if [ -n "$gap" ]; then echo; fi; gap=; }
wrapped() { fold -s -w "$1" | sed 's/ *$//'; }
chapter() { close_promises; printf '\n%s== %s%s\n\n' "$bold" "$*" "$plain"; }
tell() { close_promises; wrapped "$width" <<<"$*"; echo; }
show() { close_promises; sed 's/ *$//; s/^/    /'; echo; }
die() { printf '%s\n' "$*" >&2; exit 1; }

# A command as one would type it.
typed() {
  local word out=
  for word in "$@"; do
    if [[ $word =~ ^[A-Za-z0-9_./:=@,%+-]+$ ]]; then out+=" $word"; else out+=" '${word//\'/\'\\\'\'}'"; fi
  done
  printf '%s' "${out# }"
}

# run COMMAND...: shows it, runs it, shows what it said; $said keeps that, the status is the command's.
run() {
  local status=0
  close_promises
  wrapped $((width - 4)) <<<"$(typed "$@")" | sed "1s/^/$bold\$ /; 2,\$s/^/    /; \$s/\$/$plain/"
  said=$("$@" 2>&1) || status=$?
  [ -z "$said" ] || wrapped $((width - 4)) <<<"$said" | sed 's/^/    /; s/ *$//'
  echo
  return $status
}

# quietly COMMAND...: runs it; shows it and what it said only if it fails, and then ends.
quietly() {
  said=$("$@" 2>&1) || { printf '$ %s\n%s\n' "$(typed "$@")" "$said" >&2; die "This should not have failed: the demo ends here."; }
}

# expect WHAT COMMAND...: what the story promises; it goes on either way and remembers.
promises=() broken=0
expect() {
  local what=$1; shift
  gap=yes
  if "$@" >/dev/null 2>&1; then
    printf '%s  ok      %s%s\n' "$green" "$what" "$plain"
    promises+=("ok      $what")
  else
    printf '%s  FAILED  %s%s\n' "$red" "$what" "$plain"
    promises+=("FAILED  $what")
    broken=$((broken + 1))
  fi
}

# until_true SECONDS COMMAND...: asks again and again; fails after SECONDS.
until_true() {
  local end=$((SECONDS + $1)); shift
  until "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt "$end" ] || return 1
    sleep 0.1
  done
}

# Seconds since $1 (a value of $EPOCHREALTIME), with one decimal.
since() {
  local us=$((${EPOCHREALTIME/[.,]/} - ${1/[.,]/}))
  printf '%d.%d' $((us / 1000000)) $((us % 1000000 / 100000))
}

has() { grep -qF -- "$1" <<<"$said"; }
has_not() { ! has "$1"; }

# Whether a namespace was made by the demo.
is_ours() { [ "$(kubectl get namespace "$1" -o 'jsonpath={.metadata.labels.app\.kubernetes\.io/part-of}' 2>/dev/null)" = remit-demo ]; }
