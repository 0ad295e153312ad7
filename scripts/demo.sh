#!/usr/bin/env bash
# make demo: the story of Remit on a real Kubernetes, in plain words, and a test of it as well.
#
# A shop with an AI support bot is deployed; the bot is attacked and gives in; Remit is installed; the same attack again.
# Every promise of the story is checked: the exit status is 1 if one of them did not come true. Everything is left up
# (scripts/demo-down.sh clears it); running it again starts the story afresh.
#
#   CLUSTER=embedded|kind|current   which cluster (see tests/cluster/select.sh)
#   REMIT_IMAGE, GUARD_IMAGE, DEMO_IMAGE  images to use instead of the freshly built ones (needed with CLUSTER=current; make images, make demo-image)
#   NO_COLOR=1                      no colours
#
# On a cluster which is not the embedded one there is no harmless outside world to attack: those parts are left out,
# and the demo says so.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/demo/story.sh
source scripts/demo/steps.sh
scripts/packages.sh
mkdir -p target/demo/bin

began=$EPOCHREALTIME
chapter "Set-up: a cluster and the programs"
bring_up_cluster
build_images
start_afresh

chapter "1. A shop, and an AI service that answers its customers"
the_shop

chapter "2. Without Remit: the bot does its work, and whatever else it is told"
the_bot_at_work
the_attack_succeeds

chapter "3. Remit is installed, and one page says what the bot may reach"
install_remit
declare_the_scope

chapter "4. With Remit: the same work, the same attack"
the_bot_still_works
the_attack_is_cut_off
the_guard_says_why

chapter "5. Where the bot may go, what may it do there?"
if [ -n "$outside" ]; then
  a_declared_host_is_written_to
  read_is_declared
  reads_pass_and_writes_do_not
else
  read_is_left_out
fi

chapter "6. Who could take it away again?"
a_colleague_edits
an_insider_edits
nobody_grants_what_they_do_not_hold

chapter "7. The kill switch"
kill_switch

chapter "What this does not protect from (yet)"
the_limits

the_end
