#!/bin/sh
# Imports an image of busybox alone, and starts a container in it that keeps running.
set -eu
root=$(mktemp -d)
mkdir "$root/bin"
cp /bin/busybox "$root/bin"
for name in sh cat echo ls mkdir rm sleep touch true; do
    ln -s busybox "$root/bin/$name"
done
echo old >"$root/greeting"
tar -C "$root" -c . | docker import - busybox:local
docker image inspect --format '{{.Id}}' busybox:local >/root/kept-image
docker run --detach --name kept --network none busybox:local \
    sh -c 'echo before > /before; exec sleep 3600'
