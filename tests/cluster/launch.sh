#!/usr/bin/env bash
# Joins the cluster's own cgroups, then becomes `unshare`, whose child is init.sh in namespaces of its own.
# Started only by cluster.sh (detached, without open descriptors, with its settings in the environment).
# Being in the cgroup first means: whatever is killed half-way, `cluster.sh down` finds every process by it.
set -euo pipefail
while read -r controllers path; do
  mkdir -p "$path"
  case $controllers in
    cpuset) # a new cpuset is empty and takes no process
      for file in cpuset.cpus cpuset.mems; do cat "${path%/*}/$file" >"$path/$file"; done
      echo 1 >"$path/cgroup.clone_children"
      ;;
  esac
  echo $$ >"$path/cgroup.procs"
done <"$state/cgroups"
exec unshare --net --mount --uts --ipc --cgroup --pid --fork --kill-child --mount-proc --propagation private -- bash "$scripts/init.sh"
