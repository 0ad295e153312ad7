#!/usr/bin/env bash
# Joins the cluster's own cgroups, then becomes `unshare`, whose child is init.sh in namespaces of its own.
# Started only by cluster.sh (detached, without open descriptors, with its settings in the environment).
# Being in the cgroup first means: whatever is killed half-way, `cluster.sh down` finds every process by it.
set -euo pipefail
if [ "${1:-}" = inside ]; then
  if [ "$cgroup_version" = 2 ]; then
    # An inner node of cgroup v2 holds no processes: step into a leaf, so that init.sh can hand on the controllers.
    read -r _ path <"$state/cgroups"
    mkdir -p "$path/init"
    echo $$ >"$path/init/cgroup.procs"
  fi
  exec unshare --net --mount --uts --ipc --pid --fork --kill-child --mount-proc --propagation private -- bash "$scripts/init.sh"
fi
if [ "$cgroup_version" = 2 ]; then
  for controller in cpuset cpu io memory pids; do
    echo "+$controller" >/sys/fs/cgroup/cgroup.subtree_control || true
  done
fi
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
if [ ! -e "$state/index" ]; then # ended by `down` before we could be found
  while read -r _ path; do echo $$ >"${path%/*}/cgroup.procs"; rmdir "$path"; done < <(find /sys/fs/cgroup -type d -name "$group" -prune | sed 's/^/- /')
  exit 1
fi
exec unshare --cgroup -- bash "$scripts/launch.sh" inside
