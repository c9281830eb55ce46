#!/bin/sh
# Lays out the root file system of the image: the gateway, the libraries it is linked with, the bundled plugins, the
# roots of TLS, and nothing that an intruder could run.
set -eu

if [ $# -ne 3 ]; then
  echo "usage: $0 PROGRAM PLUGIN_FOLDER ROOT" >&2
  exit 2
fi
program=$1 plugins=$2 root=$3

mkdir -p "$root/usr/bin" "$root/plugins" "$root/etc/ssl/certs" "$root/data" "$root/keys" "$root/tmp"
chmod 1777 "$root/tmp"
# Without the names of functions, which only who looks for a fault needs, with the program as it was built.
strip -o "$root/usr/bin/tollgate" "$program"
chmod 0755 "$root/usr/bin/tollgate"

# Every library, and the loader, at the path where the program looks for it.
ldd "$program" | sed -n 's/^\t\(.* => \)\{0,1\}\(\/[^ ]*\) (0x[0-9a-f]*)$/\2/p' | while read -r library; do
  mkdir -p "$root$(dirname "$library")"
  cp -L "$library" "$root$library"
done

for plugin in "$plugins"/*.wasm; do
  cp "$plugin" "$root/plugins/"
done
chmod 0644 "$root"/plugins/*.wasm

# OTLP over TLS, and model downloads.
cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
echo 'tollgate:x:10001:10001::/data:/sbin/nologin' >"$root/etc/passwd"
echo 'tollgate:x:10001:' >"$root/etc/group"
