#!/usr/bin/env bash
# h2spec.sh HOST PORT [--tls] [--path PATH] [--except CASE]... [CASE...]: what h2spec says of a server of HTTP/2, its strict cases as well.
#
# CASE is a section (http2/5.1) or a case of one (http2/5.1/13). Fails if any case does that is not excepted. HOST is sent as server name where
# it is a name; the certificate is not verified.
#
# http2/3.5/2 sends "INVALID CONNECTION PREFACE" and takes for wrong whoever answers that it is no request of HTTP/1.1: excepted without --tls.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

[ $# -ge 2 ] || die "usage: h2spec.sh HOST PORT [--tls] [--path PATH] [--except CASE]... [CASE...]"
arguments=(--strict --timeout 3 --host "$1" --port "$2")
excepted=(http2/3.5/2)
shift 2
while [ $# -gt 0 ]; do
  case $1 in
    --tls) arguments+=(--tls --insecure); unset 'excepted[0]' ;;
    --path) arguments+=(--path "$2"); shift ;;
    --except) excepted+=("$2"); shift ;;
    *) arguments+=("$1") ;;
  esac
  shift
done
[ -x "$checkout/target/clients/h2spec/h2spec" ] || "$here/setup.sh"
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
# It exits with 1 for a failed case as well as where there is no server; the report is there only if there was one.
"$checkout/target/clients/h2spec/h2spec" "${arguments[@]}" --junit-report "$directory/report.xml" >"$directory/said" 2>&1 || true
[ -s "$directory/report.xml" ] || { cat "$directory/said" >&2; die "h2spec did not get to the end"; }
python3 - "$directory/report.xml" "${excepted[@]}" <<'P'
import sys
from xml.etree import ElementTree

excepted, run, skipped, failed, passed_over = set(sys.argv[2:]), 0, 0, 0, 0
for suite in ElementTree.parse(sys.argv[1]).getroot():
    for number, case in enumerate(suite.findall("testcase"), 1):
        name = f"{suite.get('package')}/{number}"
        run += 1
        skipped += case.find("skipped") is not None
        wrong = [e for e in case if e.tag in ("error", "failure")]
        if wrong and name in excepted:
            passed_over += 1
            print(f"excepted: {name}: {case.get('classname')}")
        elif wrong:
            failed += 1
            print(f"FAIL {name}: {case.get('classname')}: wanted, then got: {' | '.join((wrong[0].text or '').split(chr(10)))}")
print(f"h2spec: {run} cases, {run - failed - skipped - passed_over} passed, {skipped} skipped, {passed_over} excepted, {failed} failed")
sys.exit(failed > 0 or run == 0)
P
