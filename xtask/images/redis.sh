# Debian's Redis, open to the container's network as in docker's image.
set -eu
apt-get update -q
# The service is for an init system, which a container has not.
printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
chmod 755 /usr/sbin/policy-rc.d
apt-get install -q -y --no-install-recommends redis-server
rm /usr/sbin/policy-rc.d
mkdir -p /data
