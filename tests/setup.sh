#!/usr/bin/env bash
# Installs the Debian packages that the tests use, only those that are missing. Without root it says what is
# missing and goes on: tests that need them skip (and fail where CI is set).
set -euo pipefail

# command (or file) that must exist = package that brings it
wanted=(
    busybox=busybox-static mmdebstrap=mmdebstrap skopeo=skopeo umoci=umoci podman=podman buildah=buildah
    runc=runc crun=crun docker-registry=docker-registry tmux=tmux newuidmap=uidmap slirp4netns=slirp4netns
    pasta=passt fuse-overlayfs=fuse-overlayfs ip=iproute2 iptables=iptables nft=nftables git=git xz=xz-utils
    bzip2=bzip2 zstd=zstd gcc=gcc qemu-aarch64-static=qemu-user-static
    /usr/share/keyrings/debian-archive-keyring.gpg=debian-archive-keyring
)
PATH=$PATH:/usr/sbin:/sbin
missing=()
for entry in "${wanted[@]}"; do
    need=${entry%%=*}
    if [[ $need == /* ]]; then [ -e "$need" ] && continue; else command -v "$need" >/dev/null && continue; fi
    missing+=("${entry#*=}")
done
[ ${#missing[@]} = 0 ] && exit 0

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "installing ${missing[*]}"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
else
    echo "not installed: ${missing[*]} (tests that need them will be skipped)" >&2
fi
