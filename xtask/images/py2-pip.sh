# Runs in python:2.7-slim: packs Python 2.7, pip and the libraries they need into /mnt/py2-pip.tar.gz for the stand-in apk.
set -eu
if [ ! -e /usr/bin/python2.7 ]; then
    echo "no Python 2.7 in this Debian: the stand-in apk will know no package" >&2
    exit
fi
packages="libc6 libcrypt1 libssl1.1 zlib1g libbz2-1.0 libffi7 libsqlite3-0 libexpat1 libreadline8 libncursesw6 libtinfo6
python2.7 python2.7-minimal libpython2.7-stdlib libpython2.7-minimal media-types"
{
    dpkg -L $packages | grep -v -e '^/usr/share/' -e '^/etc/ld.so' -e '/gconv/' | while read -r path; do
        if [ -f "$path" ] || [ -L "$path" ]; then echo "$path"; fi
    done
    find /usr/lib/python2.7 /usr/local/lib/python2.7 /usr/local/bin /usr/lib/ssl/cert.pem /etc/pip.conf ! -type d
} | sed 's,^/,,' | LC_ALL=C sort -u >/tmp/files
tar --create --directory / --no-recursion --files-from /tmp/files --sort=name --mtime="@$SOURCE_DATE_EPOCH" --clamp-mtime \
    --owner=0 --group=0 --numeric-owner | gzip -9n >/mnt/py2-pip.tar.gz
