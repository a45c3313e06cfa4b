#!/bin/sh
# Stands in for protoc, so that nothing has to be installed. raft-proto's build script asks
# protoc for the descriptors of eraftpb.proto; they lie beside the crate that uses them,
# and one of its tests compares them with the file they are made of.
#
# It is called as `protoc … -o FILE … eraftpb.proto`. No other crate calls it.
set -eu
here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)
out=
for proto in "$@"; do
    if [ "${previous-}" = -o ]; then out=$proto; fi
    previous=$proto
done
case "$proto" in
*/eraftpb.proto) cp -- "$here/../proto/consensus/eraftpb.desc" "$out" ;;
*)
    echo "tools/protoc.sh knows eraftpb.proto and not $proto; compile it with protox" >&2
    exit 1
    ;;
esac
