# Debian's Python 3.9 with the pip and setuptools that docker's python:3.9 has, and its names in /usr/local/bin.
# Debian's own pip only fetches the other one and leaves.
set -eu
apt-get update -q
apt-get install -q -y --no-install-recommends python3 python3-pip
if [ "$(python3 -c 'import sys; print(sys.version_info[:2])')" = "(3, 9)" ]; then
    apt-get install -q -y --no-install-recommends python3-distutils
    python3 -m pip install -q --no-compile pip==23.0.1 setuptools==58.1.0 wheel==0.40.0
    apt-get purge -q -y --autoremove python3-pip python-pip-whl
else
    # A later Debian, because this one is gone: its own pip, which has to be told that nobody else manages Python here.
    rm /usr/lib/python3*/EXTERNALLY-MANAGED
    ln -s /usr/bin/pip3 /usr/local/bin/pip
fi
ln -s /usr/bin/python3 /usr/local/bin/python
ln -s /usr/bin/python3 /usr/local/bin/python3
# Layers get fixed times, which would make compiled files that compare times stale from the start.
python3 -m compileall -q --invalidation-mode unchecked-hash /usr/local/lib/python3*
