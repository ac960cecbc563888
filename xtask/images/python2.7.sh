# Debian's Python 2.7 with pip 20.3.4, the last one that runs on it. Python 3 only comes in to fetch that wheel and leaves.
set -eu
# Python 2.7 wants mime-support, which wants 50 MB of Perl; /etc/mime.types, which media-types has too, is all it reads.
mkdir -p /tmp/mime-support/DEBIAN
cat >/tmp/mime-support/DEBIAN/control <<CONTROL
Package: mime-support
Version: 3.66+stand-in
Architecture: all
Depends: media-types
Maintainer: dhow <dhow@localhost>
Description: stands in for mime-support, without mailcap
CONTROL
dpkg-deb --build /tmp/mime-support /tmp/mime-support.deb
apt-get update -q
if [ -z "$(apt-cache search --names-only '^python2.7$')" ]; then
    # A later Debian, because this one is gone. It has no Python 2, and its Python 3 must do.
    apt-get install -q -y --no-install-recommends python3 python3-pip
    rm /usr/lib/python3*/EXTERNALLY-MANAGED
    for name in python python2; do ln -s /usr/bin/python3 /usr/local/bin/$name; done
    ln -s /usr/bin/pip3 /usr/local/bin/pip
    exit
fi
apt-get install -q -y --no-install-recommends /tmp/mime-support.deb python2.7 python3-pip
python3 -m pip download -q -d /tmp/wheels --no-deps --python-version 2.7 --only-binary :all: \
    pip==20.3.4 setuptools==44.1.1 wheel==0.37.1
apt-get purge -q -y --autoremove python3-pip python-pip-whl python3 python3-minimal
python2.7 /tmp/wheels/pip-20.3.4-py2.py3-none-any.whl/pip install -q --no-compile --no-index --find-links /tmp/wheels \
    pip setuptools wheel
ln -s /usr/bin/python2.7 /usr/local/bin/python
ln -s /usr/bin/python2.7 /usr/local/bin/python2
# Layers get fixed times and Python 2 compares times, so the times come first and the compiling after.
find /usr/local/lib/python2.7 -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
python2.7 -m compileall -q /usr/local/lib/python2.7
