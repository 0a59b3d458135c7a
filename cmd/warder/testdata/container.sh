#!/bin/sh
# Runs a program as an engine would run a container: in mounts of its own, with
# the image as a root that cannot be written, a volume at /data, the processes
# and groups of the host to read, as a user without rights who can gain none.
#
#     container.sh ROOT VOLUME UID PROGRAM [ARGUMENT]...
set -eu
if [ -z "${WARDER_MOUNTS:-}" ]; then
	WARDER_MOUNTS=own exec unshare --mount "$0" "$@"
fi
unset WARDER_MOUNTS
root=$1 volume=$2 user=$3
shift 3
mount --bind "$root" "$root"
mount --bind "$volume" "$root/data"
mount --rbind /proc "$root/proc"
mount --rbind /sys "$root/sys"
mount -o remount,bind,ro "$root"
exec setpriv --no-new-privs unshare --root "$root" --wd /data --setgid "$user" --setuid "$user" "$@"
